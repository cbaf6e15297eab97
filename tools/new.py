"""Look at a folder of photographs and write a config for it; see mmkd/commands/new.py."""

from mmkd.commands.new import main

if __name__ == '__main__':
    main()
