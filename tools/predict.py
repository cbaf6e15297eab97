"""The same as ``mmkd predict``: mmkd/commands/predict.py says what it does."""

from mmkd.commands.predict import main

if __name__ == '__main__':
    main()
