r"""Check, unpack, split, cut or draw data in PASCAL VOC layout.

python tools/prepare_voc.py check data/mine --classes cat,dog         # the same as `mmkd check`
python tools/prepare_voc.py extract ~/Downloads --out data/VOCdevkit  # the official archives
python tools/prepare_voc.py split data/mine --val 0.1 --test 0.1      # write ImageSets/Main
python tools/prepare_voc.py draw data/drawn                           # a synthetic data set
python tools/prepare_voc.py subset data/VOCdevkit/VOC2012 --lists configs/voc_animals/lists \
    --out data/VOC_animals                                            # photographs of animals
python tools/prepare_voc.py part data/VOC_animals --share 0.1 --seed 0  # as if 10 % had labels
"""

import argparse
import sys

from mmkd.commands import check
from mmkd.detection.data.check import extract_voc, split_voc
from mmkd.detection.data.subset import cut_subset, keep_labels
from mmkd.detection.data.synthetic import DRAWN_SPLITS, draw_dataset
from mmkd.engine.cli import user_errors


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    commands.add_parser('check', help='the same as `mmkd check`')
    extract = commands.add_parser('extract', help='unpack the official VOC archives')
    extract.add_argument('archives', help='the folder that holds the .tar files')
    extract.add_argument('--out', default='data/VOCdevkit', help='default: %(default)s')
    split = commands.add_parser('split', help='write ImageSets/Main for data that has none')
    split.add_argument('root', help='the folder with JPEGImages and Annotations')
    split.add_argument('--val', type=float, default=0.1, help='default: %(default)s')
    split.add_argument('--test', type=float, default=0.1, help='default: %(default)s')
    split.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    draw = commands.add_parser('draw', help='draw a synthetic data set')
    draw.add_argument('root', help='the folder to make')
    draw.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    draw.add_argument('--image-size', type=int, default=128, help='default: %(default)s px')
    for name, count in DRAWN_SPLITS.items():
        draw.add_argument(f'--{name}', type=int, default=count, help='images; default: %(default)s')
    subset = commands.add_parser('subset', help='cut out the images of some lists, reduced')
    subset.add_argument('root', help='the folder with JPEGImages and Annotations')
    subset.add_argument('--lists', required=True, help='the folder with train, val and test.txt')
    subset.add_argument('--out', required=True, help='the folder to make')
    subset.add_argument('--longer-side', type=int, default=320, help='default: %(default)s px')
    part = commands.add_parser('part', help='list a share of the training images, as if only these '
                               'had labels; the others go into a folder of their own')
    part.add_argument('root', help='the folder with JPEGImages and ImageSets/Main/train.txt')
    part.add_argument('--share', type=float, required=True, help='such as 0.1')
    part.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    return parser


@user_errors()
def main() -> None:
    """Run one command."""
    if sys.argv[1:2] == ['check']:
        check.main(sys.argv[2:], f'{sys.argv[0]} check')
        return
    args = arguments().parse_args()
    if args.command == 'extract':
        for path in extract_voc(args.archives, args.out):
            print(f'unpacked {path} into {args.out}')
    elif args.command == 'split':
        for split, count in split_voc(args.root, args.val, args.test, args.seed).items():
            print(f'{split}: {count} images')
    elif args.command == 'subset':
        counts = cut_subset(args.root, args.lists, args.out, args.longer_side)
        for split, count in counts.items():
            print(f'{split}: {count} images')
    elif args.command == 'part':
        chosen, folder = keep_labels(args.root, args.share, args.seed)
        print(f'with labels: {chosen}\nwithout: {folder}')
    else:
        splits = {name: getattr(args, name) for name in DRAWN_SPLITS}
        print(draw_dataset(args.root, seed=args.seed, splits=splits, image_size=args.image_size))


if __name__ == '__main__':
    main()
