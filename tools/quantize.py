"""The same as ``mmkd quantize``: mmkd/commands/quantize.py says what it does."""

from mmkd.commands.quantize import main

if __name__ == '__main__':
    main()
