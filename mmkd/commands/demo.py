"""The whole of mmkd in one command, on drawn images and two CPU cores.

    mmkd demo    # or: make demo

Draws a data set and trains two teachers; trains the same student alone, from each teacher and from
both, with three seeds; tests every model on images that nothing was tuned on; exports the
best distilled student, draws what it finds, and prints one table. Two trainings run at a time, on a
core each. What is finished is kept in `demo/` and not run again.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from mmkd.engine.cli import user_errors
from mmkd.engine.run_folder import CONFIG
from mmkd.errors import UserError

SPLITS = dict(train=1200, val=200, test=300)
SIZE = 128


class Model(NamedTuple):
    """A row of the table."""

    title: str
    name: str
    epochs: int = 8
    teachers: tuple[str, ...] = ()

    @property
    def config(self) -> str:
        """Its config, named as the folder of its results."""
        return f'configs/demo/{self.name}.py'


TEACHERS = {
    'resnet50': Model('teacher ResNet-50', 'centernet_r50', 14),
    'hourglass': Model('teacher Hourglass', 'centernet_hourglass'),
}
ALONE = Model('student alone', 'centernet_r18')
DISTILLED = [
    Model('student from ResNet-50', 'centernet_st_r50_r18', 8, ('resnet50',)),
    Model('student from Hourglass', 'centernet_st_hourglass_r18', 8, ('hourglass',)),
    Model('student from both', 'centernet_mt_r18', 8, ('resnet50', 'hourglass')),
]


class Run(NamedTuple):
    """One training."""

    model: Model
    folder: Path
    seed: int = 0

    @property
    def checkpoint(self) -> Path:
        """Where training leaves the last weights."""
        return self.folder / f'epoch_{self.model.epochs}.pth'

    @property
    def metrics(self) -> Path:
        """Where the test leaves its result."""
        return self.folder / 'metrics.json'

    @property
    def finished(self) -> bool:
        """Whether an earlier command trained and tested it."""
        return self.checkpoint.exists() and self.metrics.exists()

    def test_map(self) -> float:
        """Return the mAP on the test split, in percent."""
        return 100 * json.loads(self.metrics.read_text())['pascal_voc/mAP']

    def validation_map(self) -> float:
        """Return the mAP on the validation split, in percent; the best student is chosen by it."""
        logs = sorted(self.folder.glob('*/vis_data/scalars.json'))
        rows = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
        return 100 * [row['pascal_voc/mAP'] for row in rows if 'pascal_voc/mAP' in row][-1]


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--dir', type=Path, default=Path('demo'), help='where everything is kept')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='of the students')
    return parser


@user_errors()
def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Run what is not there yet, then print the table."""
    args = arguments(prog).parse_args(argv)
    from mmkd.detection.data import draw_dataset

    start = time.monotonic()
    print(f'1. Drawing {sum(SPLITS.values())} images into {args.dir / "data"}', flush=True)
    args.dir.mkdir(parents=True, exist_ok=True)
    draw_dataset(args.dir / 'data', splits=SPLITS)
    teachers = [Run(model, args.dir / model.name) for model in TEACHERS.values()]
    alone = runs_of(ALONE, args)
    print('2. Training two teachers, and the student alone', flush=True)
    run_all([*teachers, *alone], args.dir, start)
    print('3. Training the student from its teachers, whose outputs are kept and used again',
          flush=True)
    # The longest first, so that the last ones end together.
    distilled = [run for group in zip(*(runs_of(model, args) for model in reversed(DISTILLED)),
                                      strict=True) for run in group]
    run_all(distilled, args.dir, start)
    best = best_distilled(distilled)
    exported, picture = args.dir / 'student.onnx', args.dir / 'comparison.jpg'
    print(f'4. {export_line(best, exported)}', flush=True)
    call('export', best.model.config, best.checkpoint, '--out', exported,
         '--images', args.dir / 'data/JPEGImages/test_00000.jpg')
    compare(best, alone, teachers, picture)
    table = table_of(teachers, alone, distilled, exported)
    (args.dir / 'table.txt').write_text(table + '\n')
    print(f'\n{table}\n\nThe same test images, drawn: {picture}\n'
          f'Done in {(time.monotonic() - start) / 60:.1f} min; everything is in {args.dir}/.')


def runs_of(model: Model, args: argparse.Namespace) -> list[Run]:
    """Return a model's trainings, one for each seed."""
    return [Run(model, args.dir / f'seed{seed}' / model.name, seed) for seed in args.seeds]


def run_all(runs: Iterable[Run], folder: Path, start: float) -> None:
    """Train and test what is not finished, a run per core and two at most."""
    def one(run: Run) -> None:
        if run.finished:
            return
        train_and_test(run, folder)
        print(f'   {(time.monotonic() - start) / 60:4.1f} min  {run.model.title}, seed {run.seed}: '
              f'{run.test_map():.1f} mAP on test images', flush=True)

    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        for _ in pool.map(one, runs):
            pass


def train_and_test(run: Run, folder: Path) -> None:
    """Run the two commands that a user would run, resuming what was interrupted."""
    if not run.checkpoint.exists():
        options = [f'teachers.{name}.checkpoint='
                   f'{folder / TEACHERS[name].name / f"epoch_{TEACHERS[name].epochs}.pth"}'
                   for name in run.model.teachers]
        if options:
            options.append(f'teacher_cache.folder={folder / "cache"}')
        call('train', run.model.config, '--work-dir', run.folder, '--resume',
             '--data-root', folder / 'data', '--cfg-options', f'randomness.seed={run.seed}',
             *options)
    call('test', run.model.config, run.checkpoint, '--work-dir', run.folder,
         '--data-root', folder / 'data', '--out', run.metrics)


def call(*command: object) -> None:
    """Run one of mmkd's commands quietly; its own message says what is wrong if it fails."""
    done = subprocess.run([sys.executable, '-m', 'mmkd', *map(str, command)],
                          env={'OMP_NUM_THREADS': '1'} | os.environ, capture_output=True,
                          text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ['no output'])[-1]
        raise UserError(f'`mmkd {" ".join(map(str, command))}` failed ({reason}); run it by itself')


def best_distilled(runs: Iterable[Run]) -> Run:
    """Return the run of the highest mAP on validation images; the test images choose nothing."""
    return max(runs, key=Run.validation_map)


def export_line(best: Run, exported: Path) -> str:
    """Say what is exported and why: the mAPs printed before are those on test images."""
    return (f'Exporting the {best.model.title}, seed {best.seed}, to {exported}: of the distilled '
            f'ones the best on validation images, {best.validation_map():.1f} mAP there')


def compare(best: Run, alone: Iterable[Run], teachers: Iterable[Run], picture: Path
            ) -> None:
    """Draw the best student beside the one alone of its seed and the better teacher."""
    from mmengine.logging import MMLogger

    from mmkd.visualization import Column, draw_comparison

    MMLogger.get_instance('demo', log_level='WARNING')  # each config says that it reads the next
    peer = next(run for run in alone if run.seed == best.seed)
    teacher = max(teachers, key=Run.validation_map)
    draw_comparison([  # by the configs that say where the data lie, which training left
        Column(title, run.folder / CONFIG, run.checkpoint) for title, run in (
            ('student alone', peer), ('distilled student', best), (teacher.model.title, teacher))],
        picture)


def table_of(teachers: list[Run], alone: list[Run], distilled: list[Run], exported: Path) -> str:
    """Return one line per model: parameters, latency, mAP, and gain over the student alone."""
    from mmkd.evaluation.paired import paired_difference

    latencies, counts = measured([*teachers, alone[0]], exported)
    rows = [('model', 'parameters', 'latency', 'mAP', 'of each seed', 'gain, 95 % interval')]
    for run in teachers:
        rows.append((run.model.title, counts[run], latencies[run], f'{run.test_map():.1f}', '', ''))
    baseline = [run.test_map() for run in alone]
    for model in (ALONE, *DISTILLED):
        values = [run.test_map() for run in (*alone, *distilled) if run.model == model]
        gain = ''
        if model is not ALONE:
            difference = paired_difference(values, baseline)
            gain = f'{difference.mean:+.1f}'
            if len(values) > 1:
                gain += f' ({difference.low:+.1f} to {difference.high:+.1f})'
        rows.append((model.title, counts[alone[0]], latencies[alone[0]],
                     f'{sum(values) / len(values):.1f}',
                     ' '.join(f'{value:.1f}' for value in values), gain))
    rows.append(('the exported one, ONNX', '', latencies[exported], '', '', ''))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ['  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
             for row in rows]
    lines.insert(1, '-' * max(map(len, lines)))
    return '\n'.join(lines) + (
        f'\n\nmAP: PASCAL VOC 2007 (11 points, IoU 0.5), {SPLITS["test"]} test images, mean of the '
        'seeds;\ngain: over the student alone of the same seed, with the interval of Student\'s t; '
        'latency: one\nimage on this machine.')


def measured(runs: Iterable[Run], exported: Path) -> tuple[dict, dict]:
    """Return the latency of one image, and the number of parameters, of each run's network."""
    import torch

    from mmkd.deploy.compare.latency import measure, onnx_call, torch_call
    from mmkd.deploy.export.detector_graph import ExportableCenterNet
    from mmkd.distillation import build_model, load_weights

    models = {run: build_model(run.model.config).eval() for run in runs}
    for run, model in models.items():
        load_weights(model, run.checkpoint)
    image = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    calls = {run: torch_call(ExportableCenterNet(model), image) for run, model in models.items()}
    times = measure(calls | {exported: onnx_call(exported)})
    return ({key: f'{time.median:.1f} ms' for key, time in times.items()},
            {run: f'{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M'
             for run, model in models.items()})
