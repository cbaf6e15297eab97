"""The table of int8: alone, distilled, with static int8, trained for int8 (and that in float).

    python tools/int8_table.py ResNet-18=RUN_ALONE,RUN_DISTILLED,RUN_INT8 MobileNetV2=... --out t.md

The runs are folders of `mmkd train`; the third is of `--int8-aware`. A student that is given
several times has several seeds: the table has their mean and each of them, and below it what int8
changes, seed by seed, with its 95 % interval: also against the same weights in float, since the
epochs of the third run change a student by themselves. Every file is evaluated on the test data of
its own first run; those of a student's first seed are timed in turn, in one process.
"""

import argparse
import tempfile
from pathlib import Path

from mmkd.engine.arguments import IntermixedParser
from mmkd.engine.cli import user_errors
from mmkd.errors import UserError

ROWS = ('alone', 'distilled', 'distilled, static int8', 'trained for int8, in float',
        'trained for int8')
CHANGES = {  # a row, another, and what their difference is called
    'static int8 against float': (ROWS[2], ROWS[1]),
    'trained for int8 against the same weights in float': (ROWS[4], ROWS[3]),
    'trained for int8 against float before that': (ROWS[4], ROWS[1])}


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = IntermixedParser(description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('students', nargs='+', metavar='NAME=ALONE,DISTILLED,INT8')
    parser.add_argument('--calibration', type=int, default=100, metavar='N',
                        help='images for the static int8: %(default)s')
    parser.add_argument('--rounds', type=int, default=100, help='timed runs: %(default)s')
    parser.add_argument('--threads', type=int, help="of onnxruntime; default: its own choice")
    parser.add_argument('--out', default='int8_table.md', help='default %(default)s')
    return parser


def files_of(runs: list[str], folder: Path, calibration: int) -> list[Path]:
    """Export three runs to the files of a table's rows."""
    from mmkd.deploy.export import export_onnx, load_model
    from mmkd.deploy.export.calibration import calibration_images
    from mmkd.deploy.export.quantize import quantize_onnx
    from mmkd.engine.config import load_config
    from mmkd.engine.run_folder import run_files

    students, floats = [], []
    for number, run in enumerate(runs):
        config, checkpoint = run_files(run)
        students.append(load_model(load_config(config), checkpoint))
        floats.append(folder / f'float_{number}.onnx')
        export_onnx(students[-1], floats[-1])
    if students[2].int8_ranges is None:
        raise UserError(f"'{runs[2]}' was not trained with --int8-aware: name a run that was")
    images = calibration_images(students[1].cfg, calibration)
    files = [*floats[:2], folder / 'static.onnx', floats[2], folder / 'aware.onnx']
    quantize_onnx(floats[1], files[2], images)
    print(quantize_onnx(floats[2], files[4], images, student=students[2]).steps, flush=True)
    return files


@user_errors()
def main() -> None:
    """Export, evaluate, time, write."""
    args = arguments().parse_args()
    from mmkd.deploy.compare.evaluate import evaluate_onnx
    from mmkd.deploy.compare.latency import measure, onnx_call
    from mmkd.engine.config import load_config
    from mmkd.engine.run_folder import run_files
    from mmkd.evaluation.paired import paired_difference
    from mmkd.files import written_atomically

    students: dict[str, list[list[str]]] = {}
    for text in args.students:
        name, _, given = text.partition('=')
        runs = given.split(',')
        if len(runs) != 3:
            raise UserError(f"'{text}': give NAME=ALONE,DISTILLED,INT8, three folders of runs")
        students.setdefault(name, []).append(runs)
    lines = ['| student | | mAP | each seed | ms | MB |', '|---|---|---|---|---|---|']
    changes = []
    for name, seeds in students.items():
        points: dict[str, list[float]] = {row: [] for row in ROWS}
        times, sizes = {}, {}
        for runs in seeds:
            with tempfile.TemporaryDirectory() as folder:
                files = dict(zip(ROWS, files_of(runs, Path(folder), args.calibration),
                                 strict=True))
                cfg = load_config(run_files(runs[0])[0])
                cfg.launcher, cfg.log_level, cfg.work_dir = 'none', 'WARNING', folder
                for row, file in files.items():
                    points[row].append(100 * next(iter(evaluate_onnx(cfg, file).values())))
                if not times:
                    times = measure({row: onnx_call(file, args.threads)
                                     for row, file in files.items()}, args.rounds)
                    sizes = {row: file.stat().st_size / 1e6 for row, file in files.items()}
        lines += [f'| {name} | {row} | {sum(values) / len(values):.2f} | '
                  f'{", ".join(f"{value:.2f}" for value in values)} | {times[row].median:.2f} | '
                  f'{sizes[row]:.2f} |' for row, values in points.items()]
        for title, (row, other) in CHANGES.items():
            change = paired_difference(points[row], points[other])
            changes.append(f'{name}, {title}: {change.mean:+.2f} '
                           f'({change.low:+.2f} to {change.high:+.2f})')
    lines += ['', *changes]
    table = '\n'.join(lines) + '\n'
    print(table, end='')
    with written_atomically(Path(args.out)) as temporary:
        temporary.write_text(table)


if __name__ == '__main__':
    main()
