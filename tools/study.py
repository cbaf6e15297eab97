"""The same as ``mmkd study``: mmkd/commands/study.py says what it does."""

from mmkd.commands.study import main

if __name__ == '__main__':
    main()
