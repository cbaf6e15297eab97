"""The same as ``mmkd compare``: mmkd/commands/compare.py says what it does."""

from mmkd.commands.compare import main

if __name__ == '__main__':
    main()
