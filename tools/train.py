"""The same as ``mmkd train``: mmkd/commands/train.py says what it does."""

from mmkd.commands.train import main

if __name__ == '__main__':
    main()
