"""Export a trained detector to ONNX, and check the file against PyTorch.

    python tools/export.py configs/centernet/centernet_r18_voc.py \\
        work_dirs/centernet_r18_voc/epoch_100.pth --out student.onnx
    python tools/export.py CONFIG CHECKPOINT --out student.onnx --images data/photos one.jpg
"""

import argparse
import importlib.util
from pathlib import Path

import mmkd  # noqa: F401  (before anything of mmdet)
from mmkd.engine.cli import user_errors
from mmkd.errors import UserError


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    from mmengine.config import DictAction
    parser.add_argument('config', help='the config that the checkpoint was trained with')
    parser.add_argument('checkpoint')
    parser.add_argument('--out', default='student.onnx', help='the file to write: %(default)s')
    parser.add_argument('--images', nargs='+', default=(), metavar='FILE_OR_FOLDER',
                        help='images on which the file is checked, beside random inputs; of a '
                             'folder the first 20')
    parser.add_argument('--opset', type=int, default=18, choices=range(17, 21),
                        help='version of the ONNX operators: %(default)s')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction,
                        help='entries of the config to override, as in training: key=value')
    return parser.parse_args()


def require_packages() -> None:
    """Raise a UserError if a package of the extra 'deploy' is absent."""
    missing = [name for name in ('onnx', 'onnxscript', 'onnxruntime')
               if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"export needs {', '.join(missing)}: pip install {' '.join(missing)}")


@user_errors()
def main() -> None:
    """Load, export, check, report."""
    args = parse_args()
    require_packages()
    from mmkd.deploy.export import export_onnx, load_detector
    from mmkd.deploy.verify import find_images
    from mmkd.engine.config import load_config

    images = find_images(args.images)
    model = load_detector(load_config(args.config, args.cfg_options), args.checkpoint)
    print(f'exporting {args.checkpoint} to ONNX opset {args.opset}', flush=True)
    on_random, on_images = export_onnx(model, args.out, images, args.opset)
    print(f'same as PyTorch on random inputs: {on_random}')
    print(f'same as PyTorch on images: {on_images}' if images else
          'not checked on images: give some with --images')
    print(f'wrote {args.out} ({Path(args.out).stat().st_size / 1e6:.1f} MB), '
          f"{len(model.dataset_meta['classes'])} classes")


if __name__ == '__main__':
    main()
