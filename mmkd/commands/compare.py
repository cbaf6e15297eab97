"""Set models side by side: parameters, operations, size, latency and accuracy in one table.

    mmkd compare --baseline teacher \\
        teacher=configs/centernet/centernet_r50_voc.py \\
        student=configs/centernet/centernet_mobilenetv2_voc.py:work_dirs/student/epoch_100.pth
    mmkd compare float=student.onnx int8=student_int8.onnx --out table.md
    mmkd compare \\
        'large=classifier --student resnet32x4' 'small=classifier --student resnet8x4'

A model is NAME=CONFIG, NAME=CONFIG:CHECKPOINT or NAME=FILE.onnx; what its config leaves open comes
behind it, as for `mmkd train`. Without a checkpoint its weights are random, which is enough for
everything but accuracy. All are timed in turn in one process.
"""

import argparse
import importlib.util
import json
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

from mmkd.engine.arguments import BACKENDS, KeyValues
from mmkd.engine.cli import user_errors
from mmkd.errors import UserError, did_you_mean


def require_packages() -> None:
    """Raise a UserError if a package of the extra 'deploy' is absent."""
    missing = [name for name in ('onnx', 'onnxscript', 'onnxruntime')
               if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"comparing needs {', '.join(missing)}: pip install {' '.join(missing)}")


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('models', nargs='+', metavar='NAME=CONFIG[:CHECKPOINT]',
                        help='a line of the table, or NAME=FILE.onnx')
    parser.add_argument('--baseline', metavar='NAME',
                        help='set the other models against this one, in percent')
    parser.add_argument('--backends', nargs='+', choices=BACKENDS, default=list(BACKENDS),
                        help='what to time (default: %(default)s)')
    parser.add_argument('--threads', type=int, help="CPU threads (default: PyTorch's own choice)")
    parser.add_argument('--rounds', type=int, default=30,
                        help='timed runs of each model in each backend: %(default)s')
    parser.add_argument('--images', nargs='+', default=(), metavar='FILE_OR_FOLDER',
                        help='images on which exports are checked and int8 models calibrated, of '
                             'a folder the first 20 (default for int8: a hundred training images '
                             'with --eval, else noise)')
    parser.add_argument('--eval', action='store_true',
                        help='evaluate the models with a checkpoint on their test data, in PyTorch '
                             'and in every ONNX backend')
    parser.add_argument('--metrics', nargs='+', default=(), metavar='NAME=JSON',
                        help='metrics of a model, as mmkd test --out wrote them')
    parser.add_argument('--out', metavar='MARKDOWN', help='write the table there, too')
    parser.add_argument('--json', metavar='FILE', help='write all numbers there')
    parser.add_argument('--cfg-options', nargs='+', action=KeyValues,
                        help='entries to override in every config: key=value')
    return parser


def check(args: argparse.Namespace, names: list[str]) -> None:
    """Raise a UserError for arguments that do not go together, before anything takes long."""
    from mmkd.files import require_writable

    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UserError(f"two models are called '{twice.pop()}': give every model a name of its "
                        'own')
    for option, name in [('--baseline', args.baseline),
                         *(('--metrics', text.partition('=')[0]) for text in args.metrics)]:
        if name is not None and name not in names:
            raise UserError(f"{option} names '{name}', which is none of the models."
                            + (did_you_mean(name, names) or f" Give one of {', '.join(names)}"))
    for option in ('threads', 'rounds'):
        value = getattr(args, option)
        if value is not None and value < 1:
            raise UserError(f'--{option} is {value}: give 1 or more')
    for path in filter(None, (args.out, args.json)):
        require_writable(Path(path))


def read_metrics(text: str) -> tuple[str, dict[str, float]]:
    """Read the file of ``NAME=JSON``.

    Raises:
        UserError: It does not hold numbers by name.
    """
    name, _, path = text.partition('=')
    try:
        metrics = json.loads(Path(path).read_text())
        return name, {key: float(value) for key, value in metrics.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"'{path}' of --metrics {name} does not hold metrics: give the file that "
                        'mmkd test --out wrote') from error


@user_errors()
def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Measure, print the table, write what was asked for."""
    args = arguments(prog).parse_args(argv)
    require_packages()
    from mmkd.deploy.compare import Setup, compare, parse_entry
    from mmkd.deploy.compare.table import as_json, markdown
    from mmkd.deploy.export.verify import find_images
    from mmkd.files import written_atomically

    entries = [parse_entry(text) for text in args.models]
    check(args, [entry.name for entry in entries])
    metrics = dict(map(read_metrics, args.metrics))
    with tempfile.TemporaryDirectory() as folder:
        setup = Setup(Path(folder), args.backends, rounds=args.rounds, evaluate=args.eval,
                      images=find_images(args.images), options=args.cfg_options, say=say,
                      **given(threads=args.threads))
        with redirect_stdout(sys.stderr):  # of an evaluation: the table stands alone
            rows = compare(entries, setup)
    for row in rows:
        row.metrics |= {'torch': metrics[row.name]} if row.name in metrics else {}
    table = markdown(rows, setup, args.baseline)
    print(f'\n{table}', end='')
    for path, text in [(args.out, table),
                       (args.json, json.dumps(as_json(rows, setup), indent=2) + '\n')]:
        if path is not None:
            with written_atomically(Path(path)) as temporary:
                temporary.write_text(text)


def say(text: str) -> None:
    """Report a step, aside from the table."""
    print(text, file=sys.stderr, flush=True)


def given(**options: int | None) -> dict[str, int]:
    """The options that have a value."""
    return {name: value for name, value in options.items() if value is not None}
