"""The same as ``mmkd new``: mmkd/commands/new.py says what it does."""

from mmkd.commands.new import main

if __name__ == '__main__':
    main()
