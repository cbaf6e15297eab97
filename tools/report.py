"""Write one page on a training: see mmkd/commands/report.py."""

from mmkd.commands.report import main

if __name__ == '__main__':
    main()
