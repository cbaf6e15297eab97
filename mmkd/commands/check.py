"""Say what each split of a data set in PASCAL VOC layout holds, and what is missing or broken.

    mmkd check data/mine --classes cat,dog
    mmkd check data/VOCdevkit

The exit status is 1 if there is an error.
"""

import argparse

from mmkd.engine.cli import user_errors


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('root', help='a VOC-layout folder or a VOCdevkit')
    parser.add_argument('--classes', type=lambda text: text.split(','), metavar='A,B,C',
                        help="known classes (default: VOC's 20 in a devkit, else all)")
    return parser


@user_errors()
def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Print a report of each split."""
    args = arguments(prog).parse_args(argv)
    from mmkd.detection.data.check import check_voc

    reports = check_voc(args.root, args.classes)
    print(*reports, sep='\n')
    errors = sum(len(report.problems) for report in reports)
    print(f'{errors} errors' if errors else 'no errors')
    if errors:
        raise SystemExit(1)
