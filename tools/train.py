"""Train, distil or resume.

    python tools/train.py configs/centernet_mt_r18.py --work-dir work_dirs/student
    python tools/train.py configs/centernet_mt_r18.py --work-dir work_dirs/student --resume

Several processes: tools/dist_train.sh.
"""

import argparse

from mmkd.engine.cli import user_errors


@user_errors()
def main() -> None:
    """Parse the arguments and train."""
    from mmkd.engine import launch

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    launch.add_common_arguments(parser)
    parser.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT',
                        help='go on from this checkpoint; without a name from the newest whole one '
                        'in the work directory')
    parser.add_argument('--amp', action='store_true',
                        help='mixed precision: float16 on a GPU, bfloat16 on a CPU')
    args = parser.parse_args()
    launch.train(launch.config_from_arguments(args), args.resume, args.amp)


if __name__ == '__main__':
    main()
