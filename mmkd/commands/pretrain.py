"""Let a backbone learn from teachers on images alone; nobody has to label them.

    mmkd pretrain resnet18 --teacher timm:vit_small_patch14_dinov2=dinov2.safetensors \\
        --data photos/
    mmkd pretrain timm:mobilenetv4_conv_small --data photos/ --epochs 50 \\
        --teacher hf:dinov2-small --teacher hf:clip-vit-base-patch32
    mmkd pretrain resnet50 --teacher work_dirs/teacher --data photos/ --size 320

The folder of the run then has backbone.pth: weights of the backbone for init_cfg of any config, and
those of a network of timm for timm itself. Several processes: tools/torchrun.sh.
"""

import argparse
import os

from mmkd.engine.arguments import KeyValues
from mmkd.engine.cli import user_errors


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('backbone', help='resnet18 (34, 50, 101, 152), timm:NAME, a network of '
                        'mmkd, or a config, for its backbone')
    parser.add_argument('--teacher', action='append', required=True, metavar='TEACHER',
                        help='timm:NAME=CHECKPOINT, hf:FOLDER, the folder of a run, or '
                        'CONFIG=CHECKPOINT; may be given several times')
    parser.add_argument('--data', required=True, metavar='FOLDER', help='images, at any depth')
    parser.add_argument('--method', default='foundation', help='foundation (cosine, default), '
                        'foundation_pkd or foundation_l2')
    parser.add_argument('--epochs', type=int, metavar='N', help='passes over them (default: 100)')
    parser.add_argument('--size', type=int, metavar='PIXELS',
                        help='height and width of what the backbone sees (default: 224)')
    parser.add_argument('--batch-size', type=int, metavar='N', help='(default: 128)')
    parser.add_argument('--work-dir', help='(default: work_dirs/pretrain_BACKBONE)')
    parser.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT',
                        help='go on from this checkpoint; without a name from the newest whole one '
                        'in the work directory')
    parser.add_argument('--amp', nargs='?', const='auto', choices=['auto', 'fp16', 'bf16'],
                        help='mixed precision; by itself fp16 on a GPU, bf16 on a CPU that has it')
    parser.add_argument('--cfg-options', nargs='+', action=KeyValues, metavar='KEY=VALUE',
                        help='override entries of the config, e.g. optim_wrapper.optimizer.lr=2e-3')
    parser.add_argument('--launcher', choices=['none', 'pytorch'], default='none',
                        help='pytorch when torchrun starts it')
    return parser


@user_errors(if_interrupted='continue with --resume')
def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse the arguments, train, and write the backbone."""
    args = arguments(prog).parse_args(argv)
    from mmkd.engine import launch
    from mmkd.engine.config import override, validate_config
    from mmkd.engine.pretrain import pretraining, write_backbone

    cfg = pretraining(args.backbone, args.teacher, args.data, args.method, args.epochs, args.size,
                      args.batch_size)
    override(cfg, args.cfg_options)
    validate_config(cfg)
    cfg.work_dir, cfg.launcher = args.work_dir or cfg.work_dir, args.launcher
    if args.amp is not None:
        cfg.amp = args.amp
    launch.train(cfg, args.resume)
    if os.environ.get('RANK', '0') == '0':
        print(f'{write_backbone(cfg)}: the backbone, for init_cfg=dict(type=\'Pretrained\', '
              'checkpoint=...)')
