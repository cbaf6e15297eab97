"""The same as ``mmkd browse``: mmkd/commands/browse.py says what it does."""

from mmkd.commands.browse import main

if __name__ == '__main__':
    main()
