"""Turn a float32 model of mmkd export into an int8 one, and evaluate both.

    mmkd quantize configs/centernet/centernet_r18_voc.py student.onnx \\
        --out student_int8.onnx
    mmkd quantize CONFIG student.onnx --out student_int8.onnx --no-eval \\
        --images data/photos --keep-float neck bbox_head.wh_head
    mmkd quantize CONFIG student.onnx --list-layers
    mmkd quantize work_dirs/student --out student_int8.onnx

Of a run, or of CONFIG and a checkpoint, the float32 model is exported first; if the student was
trained for int8 (mmkd train --int8-aware), the ranges are those that it learned. Otherwise it is
calibrated on images of the config's training data set or on those that --images names.
"""

import argparse
import importlib.util
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmkd.engine.arguments import add_common_arguments
from mmkd.engine.cli import user_errors
from mmkd.errors import UserError


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser)
    parser.add_argument('model', nargs='?', help='the float32 .onnx file, or a checkpoint; not '
                        'needed where the folder of a run stands in place of the config')
    parser.add_argument('--out', default='student_int8.onnx',
                        help='the file to write: %(default)s')
    parser.add_argument('--calibration', type=int, default=100, metavar='N',
                        help='how many images to calibrate on: %(default)s')
    parser.add_argument('--images', nargs='+', metavar='FILE_OR_FOLDER',
                        help='draw them from these, and not from the training data set')
    parser.add_argument('--seed', type=int, default=0, help='of that draw: %(default)s')
    parser.add_argument('--keep-float', nargs='+', default=(), metavar='LAYER',
                        help='layers to leave in float besides, or modules that hold them; * and '
                             '? stand for any characters')
    parser.add_argument('--list-layers', action='store_true',
                        help='print the names of the layers and end')
    parser.add_argument('--no-eval', action='store_true',
                        help="do not evaluate the two models on the config's test data")
    return parser


def require_packages() -> None:
    """Raise a UserError if a package of the extra 'deploy' is absent."""
    missing = [name for name in ('onnx', 'onnxruntime') if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"quantising needs {', '.join(missing)}: pip install {' '.join(missing)}")


def print_layers(path: str) -> None:
    """List the layers, one a line."""
    from mmkd.deploy.export.quantize import list_layers

    for layer in list_layers(path):
        shape = 'x'.join(map(str, layer.shape))
        print(f"{layer.name}  {shape}{'  stays in float' if layer.kept else ''}")


def print_metrics(exact: Mapping[str, float], quantised: Mapping[str, float]) -> None:
    """Print each metric of both models."""
    width = max(map(len, exact))
    print(f"{'':{width}}  {'float':>9}  {'int8':>9}  {'change':>9}")
    for name, value in exact.items():
        print(f'{name:{width}}  {value:9.4f}  {quantised[name]:9.4f}  '
              f'{quantised[name] - value:+9.4f}')


def advice(exact: Mapping[str, float], quantised: Mapping[str, float],
           calibration: int) -> str | None:
    """Say what to try if int8 loses more than a point of the main metric, the first one."""
    name, value = next(iter(exact.items()))
    # The accuracies of classifiers are in percent, all else from 0 to 1.
    lost = (value - quantised[name]) * (1 if name.startswith('accuracy/') else 100)
    if lost <= 1:
        return None
    return (f'int8 loses {lost:.1f} points of {name}: calibrate on more images than {calibration} '
            '(--calibration) or on others (--images), or leave layers in float (--keep-float, '
            'names by --list-layers), first those at the beginning and the head')


@user_errors()
def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Export what is no .onnx file, and quantise."""
    args = arguments(prog).parse_args(argv)
    require_packages()
    if args.model is None:
        from mmkd.engine.run_folder import run_files

        args.config, args.model = run_files(args.config)
    with tempfile.TemporaryDirectory() as folder:
        student = None
        if Path(args.model).suffix != '.onnx':
            student = exported(args, Path(folder, 'float.onnx'))
        if args.list_layers:
            print_layers(args.model)
        else:
            quantise(args, student)


def exported(args: argparse.Namespace, path: Path) -> Any:
    """Export the checkpoint that ``args.model`` names to ``path``, named there from now on."""
    from mmkd.deploy.export import export_onnx, load_model
    from mmkd.engine.launch import config_from_arguments

    student = load_model(config_from_arguments(args), args.model)
    print(f'exporting {args.model}', flush=True)
    print(f'same as PyTorch on random inputs: {export_onnx(student, path)[0]}')
    args.model = str(path)
    return student


def quantise(args: argparse.Namespace, student: Any) -> None:
    """Evaluate, quantise, evaluate again, report.

    Args:
        args: of the command line; its model is an ``.onnx`` file.
        student: what was exported there, if that was now.
    """
    from mmkd.deploy.compare.evaluate import evaluate_onnx
    from mmkd.deploy.export.calibration import calibration_images, draw_images, image_files
    from mmkd.deploy.export.quantize import kept_layers, list_layers, quantize_onnx
    from mmkd.engine.launch import config_from_arguments
    from mmkd.files import require_writable

    # What does not serve is refused before anything is evaluated.
    kept_layers(list_layers(args.model), args.keep_float)
    require_writable(Path(args.out))
    cfg = config_from_arguments(args)
    cfg.log_level = 'WARNING'
    images = (calibration_images(cfg, args.calibration, args.seed) if args.images is None
              else draw_images(image_files(args.images), args.calibration, args.seed))
    if not args.no_eval:
        print(f'evaluating {args.model}', flush=True)
        exact = evaluate_onnx(cfg, args.model)
    trained = getattr(student, 'int8_ranges', None) is not None
    print(f'quantising {"the student" if student is not None else args.model}, '
          + ('with the ranges that it was trained with' if trained
             else f'calibrated on {len(images)} images'), flush=True)
    report = quantize_onnx(args.model, args.out, images, args.keep_float, student)
    if report.steps is not None:
        print(f'same as the rounded student in PyTorch: {report.steps}')
    sizes = [Path(path).stat().st_size / 1e6 for path in (args.model, args.out)]
    print(f'{len(report.layers)} layers in int8, {len(report.kept)} in float: '
          f"{', '.join(report.kept) or 'none'}")
    print(f'int8 agrees with float in {report.agreeing} of {report.certain} results')
    print(f'wrote {args.out} ({sizes[0]:.2f} -> {sizes[1]:.2f} MB)')
    if not args.no_eval:
        print(f'evaluating {args.out}', flush=True)
        quantised = evaluate_onnx(cfg, args.out)
        print_metrics(exact, quantised)
        if not trained and (told := advice(exact, quantised, len(images))):
            print(told)
