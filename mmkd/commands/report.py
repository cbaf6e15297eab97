"""Write one page on a training, or on several side by side: curves, pictures, tables.

    mmkd report work_dirs/student                 # work_dirs/student/report.html
    mmkd report work_dirs/alone work_dirs/distilled --out both.html

The page needs nothing beside itself. The best checkpoint is evaluated on the validation images once
more, and teachers are asked again, so it takes a minute or more. Needs `pip install mmkd[vis]`.
"""

import argparse
import importlib.util
import sys
from pathlib import Path

import mmkd  # noqa: F401  (before anything of mmdet)
from mmkd.engine.cli import user_errors
from mmkd.errors import UserError

__all__ = ['main']


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog=prog, description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', nargs='+', type=Path, metavar='RUN',
                        help='the work directory of a training')
    parser.add_argument('--out', type=Path, metavar='FILE', help='the page (default: report.html '
                        'in the first RUN)')
    return parser


@user_errors()
def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Write the report.

    Args:
        argv: the arguments; None for those of the process.
        prog: how the command is called in its help.
    """
    args = arguments(prog).parse_args(argv)
    for package in ('jinja2', 'matplotlib'):
        if importlib.util.find_spec(package) is None:
            raise UserError(f'{package} is missing, which the page is made with: '
                            'pip install mmkd[vis]')
    import mmkd.detection  # noqa: F401  (before anything of mmdet, which would speak)
    from mmkd.report.page import write_report

    out = args.out or args.runs[0] / 'report.html'
    write_report(args.runs, out, lambda text: print(f'{text} ...', file=sys.stderr, flush=True))
    print(f'written: {out}')
