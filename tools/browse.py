"""Show training images as the network sees them; see mmkd/commands/browse.py."""

from mmkd.commands.browse import main

if __name__ == '__main__':
    main()
