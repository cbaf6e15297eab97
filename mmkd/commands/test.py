"""Evaluate a checkpoint, or the .onnx file that mmkd export or mmkd quantize made of it.

    mmkd test configs/centernet_mt_r18.py work_dirs/student/epoch_100.pth
    mmkd test configs/centernet_mt_r18.py student.onnx

Several processes: tools/dist_test.sh.
"""

import argparse

from mmkd.engine.arguments import add_choices, add_common_arguments
from mmkd.engine.cli import user_errors


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser)
    add_choices(parser, teaches=False)
    parser.add_argument('checkpoint', help='weights of the model in the config, or its .onnx file')
    parser.add_argument('--show-dir', help='draw the detections into the images of this folder')
    parser.add_argument('--score-thr', type=float, metavar='SCORE', help='with --show-dir: draw no '
                        'object below it (default: default_hooks.visualization.score_thr of the '
                        'config, or 0.3)')
    parser.add_argument('--out', metavar='JSON', help='write the metrics to this file')
    return parser


@user_errors()
def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse the arguments and evaluate."""
    args = arguments(prog).parse_args(argv)
    from mmkd.engine import launch

    launch.test(launch.config_from_arguments(args), args.checkpoint, args.show_dir, args.out,
                args.score_thr)
