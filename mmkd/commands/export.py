"""Export a trained detector or classifier, and check the file against PyTorch.

    mmkd export work_dirs/student --out student.onnx
    mmkd export configs/centernet/centernet_r18_voc.py \\
        work_dirs/centernet_r18_voc/epoch_100.pth --out student.onnx
    mmkd export work_dirs/student --out student.onnx --images data/photos one.jpg
    mmkd export CONFIG CHECKPOINT --out student.onnx --image-input --half --data 20
    mmkd export CONFIG CHECKPOINT --out student.pt2 --format pt2

Of a run alone, its config.py and best.pth are meant.
"""

import argparse
import importlib.util
from pathlib import Path

from mmkd.engine.arguments import IntermixedParser, KeyValues
from mmkd.engine.cli import user_errors
from mmkd.errors import UserError


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = IntermixedParser(
        prog=prog, description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help="the folder of a run, or its checkpoint's config")
    parser.add_argument('checkpoint', nargs='?')
    parser.add_argument('--out', help='the file to write: student.onnx or student.pt2')
    parser.add_argument('--format', choices=['onnx', 'pt2'], default='onnx',
                        help="pt2: torch.export's, run by PyTorch alone; default %(default)s")
    parser.add_argument('--batch', type=int, default=0, metavar='N',
                        help='fix the number of images that the input holds; any by default')
    parser.add_argument('--dynamic-size', action='store_true',
                        help='let height and width of the input vary')
    parser.add_argument('--image-input', action='store_true',
                        help='take one uint8 image of any size: scaling, normalisation and padding '
                             'are then inside the model')
    parser.add_argument('--half', action='store_true', help='compute in float16')
    parser.add_argument('--opset', type=int, choices=range(17, 21),
                        help='version of the ONNX operators: 18 by default')
    checks = parser.add_argument_group('checked on, beside random inputs')
    checks.add_argument('--images', nargs='+', default=(), metavar='FILE_OR_FOLDER',
                        help='these images; of a folder the first 20')
    checks.add_argument('--data', type=int, default=0, metavar='N',
                        help="the first N images of the config's test data set")
    parser.add_argument('--data-root', metavar='FOLDER', help="where the config's data lie, in "
                        'place of its data_root')
    parser.add_argument('--cfg-options', nargs='+', action=KeyValues,
                        help='entries of the config to override, as in training: key=value')
    return parser


def require_packages() -> None:
    """Raise a UserError if a package of the extra 'deploy' is absent."""
    missing = [name for name in ('onnx', 'onnxscript', 'onnxruntime')
               if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"export needs {', '.join(missing)}: pip install {' '.join(missing)}")


def check_args(args: argparse.Namespace) -> None:
    """Raise a UserError for options that belong to ONNX alone."""
    for option, given in {'--image-input': args.image_input, '--opset': args.opset}.items():
        if given and args.format == 'pt2':
            raise UserError(f'{option} is for ONNX and not for --format pt2: leave one of them out')
    if args.data < 0:
        raise UserError(f'--data is {args.data}: give a number of images above 0')


@user_errors()
def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Load, export, check, report."""
    args = arguments(prog).parse_args(argv)
    require_packages()
    check_args(args)
    from mmkd.deploy.export import export_onnx, export_pt2, load_model
    from mmkd.deploy.export.verify import dataset_images, find_images
    from mmkd.engine.config import load_config, override
    from mmkd.engine.data_root import move_data
    from mmkd.engine.run_folder import run_files
    from mmkd.files import require_writable

    if args.checkpoint is None:
        args.config, args.checkpoint = run_files(args.config)
    out = args.out or f'student.{args.format}'
    require_writable(Path(out))
    images = find_images(args.images)
    cfg = load_config(args.config)
    if args.data_root:
        move_data(cfg, args.data_root)
    override(cfg, args.cfg_options)
    model = load_model(cfg, args.checkpoint)
    if args.data:
        images = [*images, *dataset_images(cfg, args.data)]
    options = dict(batch=args.batch, dynamic_size=args.dynamic_size, half=args.half)
    print(f'exporting {args.checkpoint} to {args.format}', flush=True)
    if args.format == 'pt2':
        on_random, on_images = export_pt2(model, out, images, **options)
    else:
        on_random, on_images = export_onnx(model, out, images, args.opset or 18,
                                           image_input=args.image_input, **options)
    print(f'same as PyTorch on random inputs: {on_random}')
    print(f'same as PyTorch on images: {on_images}' if images else
          'not checked on images: give some with --images or --data')
    detects = hasattr(model, 'bbox_head') or hasattr(model, 'roi_head')
    if detects and not on_random.boxes + on_images.boxes:
        print('nothing was detected on any of these, so little was compared: give --images of what '
              'the model detects')
    print(f'wrote {out} ({Path(out).stat().st_size / 1e6:.1f} MB)')
