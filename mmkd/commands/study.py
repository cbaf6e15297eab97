"""Does it help? Train a baseline and its variants with the same seeds, and judge the difference.

    mmkd study studies/drawn_r18.py --seeds 0 1 2 --jobs 2

A study file names the baseline, its variants, the metric and the smallest gain that matters; see
mmkd/study/plan.py for all that it may say. Teachers are trained first, once. What is finished is
not run again and what was interrupted goes on, so the command may be given again at any time.
work_dirs/studies/NAME then has results.csv, table.md and points.png.
"""

import argparse
from pathlib import Path

from mmkd.engine.cli import user_errors


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('study', help='path or name of the study file')
    parser.add_argument('--seeds', type=int, nargs='+', help="default: the study's own")
    parser.add_argument('--jobs', type=int, default=2, help='trainings at a time (default: 2)')
    parser.add_argument('--variants', nargs='+', metavar='NAME',
                        help='beside the baseline, only these')
    parser.add_argument('--out', type=Path, help='default: work_dirs/studies/NAME')
    return parser


@user_errors()
def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Run what is missing, then print the table."""
    args = arguments(prog).parse_args(argv)
    from mmkd.study.command import run_study

    run_study(args.study, args.seeds, args.jobs, args.variants, args.out)
