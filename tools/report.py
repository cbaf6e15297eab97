"""The same as ``mmkd report``: mmkd/commands/report.py says what it does."""

from mmkd.commands.report import main

if __name__ == '__main__':
    main()
