"""``python -m mmkd`` is the command ``mmkd``."""

from mmkd.commands import main

if __name__ == '__main__':
    main()
