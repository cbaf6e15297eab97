"""Draw the embeddings of a student and its teachers by t-SNE, one panel each.

    python tools/visualize_embeddings.py \\
        work_dirs/cifar100/dkd_resnet32x4_resnet8x4/distill.py \\
        work_dirs/cifar100/dkd_resnet32x4_resnet8x4/epoch_240.pth --out embeddings.png

The images are of the test split and the same in every panel. Needs `pip install mmkd[vis]`.
"""

import argparse

import mmkd  # noqa: F401  (before anything of mmdet)
from mmkd.engine.cli import user_errors


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='a classification config, as it lies in the '
                        'work directory')
    parser.add_argument('checkpoint', help='weights of its model')
    parser.add_argument('--out', required=True, metavar='PICTURE', help='png, jpg, pdf or svg')
    parser.add_argument('--classes', type=int, default=10, help='draw the first CLASSES classes')
    parser.add_argument('--images', type=int, default=1000, help='images to draw, at most')
    parser.add_argument('--seed', type=int, default=0, help='of t-SNE')
    return parser


@user_errors()
def main() -> None:
    """Draw the picture."""
    args = arguments().parse_args()
    from mmkd.engine.config import load_config, validate_config
    from mmkd.visualization import visualize_embeddings

    cfg = load_config(args.config)
    validate_config(cfg)
    visualize_embeddings(cfg, args.checkpoint, args.out, args.classes, args.images, args.seed)
    print(f'drawn: {args.out}')


if __name__ == '__main__':
    main()
