"""The same as ``mmkd demo``: mmkd/commands/demo.py says what it does."""

from mmkd.commands.demo import main

if __name__ == '__main__':
    main()
