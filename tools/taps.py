"""The same as ``mmkd taps``: mmkd/commands/taps.py says what it does."""

from mmkd.commands.taps import main

if __name__ == '__main__':
    main()
