"""The same as ``mmkd export``: mmkd/commands/export.py says what it does."""

from mmkd.commands.export import main

if __name__ == '__main__':
    main()
