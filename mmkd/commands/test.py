"""Evaluate a checkpoint, or the .onnx file that mmkd export or mmkd quantize made of it.

    mmkd test work_dirs/student
    mmkd test configs/centernet_mt_r18.py work_dirs/student/epoch_100.pth
    mmkd test configs/centernet_mt_r18.py student.onnx

Of a run alone, its config.py and best.pth are meant.

Several processes: tools/dist_test.sh.
"""

import argparse

from mmkd.engine.arguments import IntermixedParser, add_choices, add_common_arguments
from mmkd.engine.cli import user_errors
from mmkd.engine.run_folder import run_files
from mmkd.undrawn import DRAWN_FROM


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = IntermixedParser(
        prog=prog, description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser)
    add_choices(parser, teaches=False)
    parser.add_argument('checkpoint', nargs='?', help='weights of the model in the config, or its '
                        '.onnx file')
    parser.add_argument('--show-dir', help='draw the detections into the images of this folder')
    parser.add_argument('--score-thr', type=float, metavar='SCORE', help='with --show-dir: draw no '
                        'object below it (default: default_hooks.visualization.score_thr of the '
                        'config, or '
                        f'{DRAWN_FROM})')
    parser.add_argument('--out', metavar='JSON', help='write the metrics to this file')
    return parser


@user_errors()
def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse the arguments and evaluate."""
    args = arguments(prog).parse_args(argv)
    from mmkd.api import runner_of
    from mmkd.engine import launch

    if args.checkpoint is None:
        args.config, args.checkpoint = run_files(args.config)
    launch.test(launch.config_from_arguments(args), args.checkpoint, args.show_dir, args.out,
                args.score_thr, runner_of(args.checkpoint))
