"""The same as ``mmkd methods``: mmkd/commands/methods.py says what it does."""

from mmkd.commands.methods import main

if __name__ == '__main__':
    main()
