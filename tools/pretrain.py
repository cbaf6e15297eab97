"""The same as ``mmkd pretrain``: mmkd/commands/pretrain.py says what it does."""

from mmkd.commands.pretrain import main

if __name__ == '__main__':
    main()
