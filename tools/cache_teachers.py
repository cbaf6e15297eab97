"""The same as ``mmkd cache``: mmkd/commands/cache.py says what it does."""

from mmkd.commands.cache import main

if __name__ == '__main__':
    main()
