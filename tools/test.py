"""The same as ``mmkd test``: mmkd/commands/test.py says what it does."""

from mmkd.commands.test import main

if __name__ == '__main__':
    main()
