"""Label a folder of images by what teachers find in them.

    mmkd label photos --teacher work_dirs/teacher
    mmkd label photos --out labelled --teacher a.py=a.pth --teacher b.py=b.pth --score-thr 0.4

OUT then has JPEGImages, Annotations and ImageSets/Main/train.txt in PASCAL VOC layout, and
annotations.json, COCO's, with a score for each box. Given again, the command goes on where it was.
"""

import argparse

from mmkd.engine.cli import user_errors


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', help='images, at any depth')
    parser.add_argument('--teacher', action='append', required=True, metavar='RUN',
                        help='a detector, by the folder of its run or CONFIG=CHECKPOINT; several '
                        'are joined by weighted box fusion (pip install mmkd[label])')
    parser.add_argument('--out', metavar='OUT', help='default: FOLDER_labelled')
    parser.add_argument('--score-thr', type=float, metavar='X', help='boxes below this score are '
                        'no labels (default: the one with the best F1 on the validation images '
                        "of the first teacher's config)")
    return parser


@user_errors(if_interrupted='the same command goes on')
def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse the arguments and label."""
    args = arguments(prog).parse_args(argv)
    import mmkd.engine.hooks  # noqa: F401  (before anything of mmdet)
    from mmkd.label import label_folder

    label_folder(args.folder, args.teacher, args.out, args.score_thr)
