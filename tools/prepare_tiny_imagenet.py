r"""Make the 32 px copy of 100 classes of TinyImageNet that `--data tiny_imagenet100` reads.

python tools/prepare_tiny_imagenet.py data

The folder has tiny-imagenet-200/ or tiny-imagenet-200.zip, which is downloaded if it is missing
and the network allows. configs/_base_/classification/tiny_imagenet100.txt lists the classes.
"""

import argparse

from mmkd.classification.data.tiny_imagenet import TinyImageNet100, make_tiny_imagenet100
from mmkd.engine.cli import user_errors


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data_root', help='the folder of both, --data-root of a training')
    return parser


@user_errors()
def main() -> None:
    """Write the images."""
    root = arguments().parse_args().data_root
    for split, count in make_tiny_imagenet100(root).items():
        print(f'{root}/{TinyImageNet100.folder}/{split}: {count} images')


if __name__ == '__main__':
    main()
