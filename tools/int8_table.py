"""The table of int8: alone, distilled, with static int8, trained for int8: mAP, ms, MB.

    python tools/int8_table.py ResNet-18=RUN_ALONE,RUN_DISTILLED,RUN_INT8 MobileNetV2=... --out t.md

The runs are folders of `mmkd train`; the third is of `--int8-aware`. All files of a student are
timed in turn, in one process, and evaluated on the test data of its first run.
"""

import argparse
import tempfile
from pathlib import Path

from mmkd.engine.arguments import IntermixedParser
from mmkd.engine.cli import user_errors
from mmkd.errors import UserError

ROWS = ('alone', 'distilled', 'distilled, static int8', 'distilled, int8-aware')


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
    """Export three runs to the four files of a table's rows."""
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
    files = [*floats[:2], folder / 'static.onnx', folder / 'aware.onnx']
    quantize_onnx(floats[1], files[2], images)
    print(quantize_onnx(floats[2], files[3], images, student=students[2]).steps, flush=True)
    return files


@user_errors()
def main() -> None:
    """Export, evaluate, time, write."""
    args = arguments().parse_args()
    from mmkd.deploy.compare.evaluate import evaluate_onnx
    from mmkd.deploy.compare.latency import measure, onnx_call
    from mmkd.engine.config import load_config
    from mmkd.engine.run_folder import run_files
    from mmkd.files import written_atomically

    lines = ['| student | | mAP | ms | MB |', '|---|---|---|---|---|']
    for text in args.students:
        name, _, given = text.partition('=')
        runs = given.split(',')
        if len(runs) != 3:
            raise UserError(f"'{text}': give NAME=ALONE,DISTILLED,INT8, three folders of runs")
        with tempfile.TemporaryDirectory() as folder:
            files = files_of(runs, Path(folder), args.calibration)
            cfg = load_config(run_files(runs[0])[0])
            cfg.launcher, cfg.log_level, cfg.work_dir = 'none', 'WARNING', folder
            points = [next(iter(evaluate_onnx(cfg, file).values())) for file in files]
            calls = {row: onnx_call(file, args.threads)
                     for row, file in zip(ROWS, files, strict=True)}
            times = measure(calls, args.rounds)
            for row, file, value in zip(ROWS, files, points, strict=True):
                lines.append(f'| {name} | {row} | {100 * value:.2f} | {times[row].median:.2f} | '
                             f'{file.stat().st_size / 1e6:.2f} |')
    table = '\n'.join(lines) + '\n'
    print(table, end='')
    with written_atomically(Path(args.out)) as temporary:
        temporary.write_text(table)


if __name__ == '__main__':
    main()
