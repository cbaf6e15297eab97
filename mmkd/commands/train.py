"""Train, distil or resume.

    mmkd train configs/centernet_mt_r18.py --work-dir work_dirs/student
    mmkd train configs/centernet_mt_r18.py --work-dir work_dirs/student --resume
    mmkd train configs/centernet_mt_r18.py --unlabelled photos/
    mmkd train configs/centernet_mt_r18.py --int8-aware --epochs 3 \\
        --cfg-options load_from=student.pth
    mmkd train mmdet::retinanet/retinanet_r18_fpn_1x_coco.py --method pkd \\
        --teacher mmdet::retinanet/retinanet_r50_fpn_1x_coco.py=r50.pth
    mmkd train classifier --data cifar100 --student resnet8x4 --teacher resnet32x4 --method dkd
    mmkd train online --data cifar100 --members resnet32,wrn_16_2 --method mcl

Several processes: tools/dist_train.sh.
"""

import argparse
from pathlib import Path

from mmkd.engine.arguments import add_choices, add_common_arguments
from mmkd.engine.cli import user_errors
from mmkd.engine.config_values import TRACKERS


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser)
    add_choices(parser)
    parser.add_argument('--unlabelled', metavar='FOLDER', help='learn from the teachers on the '
                        'images in this folder, too, which need no labels')
    parser.add_argument('--epochs', type=int, metavar='N', help='train for so many epochs, with '
                        'the learning-rate schedule, and warm-up and end of terms, stretched or '
                        'compressed to them')
    parser.add_argument('--dump', metavar='FILE.py', help='write the whole config there and stop')
    parser.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT',
                        help='go on from this checkpoint; without a name from the newest whole one '
                        'in the work directory')
    parser.add_argument('--log', choices=TRACKERS, help='log there, too (default: only to files '
                        'of the work directory); mlflow: to MLFLOW_TRACKING_URI, or mlflow.db here')
    parser.add_argument('--amp', nargs='?', const='auto', choices=['auto', 'fp16', 'bf16'],
                        help='mixed precision; by itself fp16 on a GPU, bf16 on a CPU that has it')
    parser.add_argument('--channels-last', action='store_true', default=None,
                        help='keep feature maps with the channels innermost')
    parser.add_argument('--compile', action='store_true', default=None,
                        help='compile the student with torch.compile')
    parser.add_argument('--int8-aware', action='store_true', default=None,
                        help='train for int8: round weights and features while learning; of a '
                        'student named by --cfg-options load_from=FILE at once, else for the last '
                        'fifth')
    return parser


@user_errors(if_interrupted='continue with --resume')
def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse the arguments and train."""
    args = arguments(prog).parse_args(argv)
    from mmkd.engine import launch
    from mmkd.files import require_writable

    cfg = launch.config_from_arguments(args)
    for name in ('amp', 'channels_last', 'compile'):
        if getattr(args, name) is not None:
            cfg[name] = getattr(args, name)
    if args.int8_aware and not cfg.get('int8_aware'):
        cfg.int8_aware = True
    if args.dump:
        if cfg.work_dir == launch.own_folder(cfg.filename):
            cfg.pop('work_dir')  # of this config; the new one has a folder of its own
        require_writable(Path(args.dump))
        cfg.dump(args.dump)
        print(f'{args.dump}: train it with `mmkd train {args.dump}`')
        return
    launch.train(cfg, args.resume)
