"""The whole of mmkd in one command, on drawn images and two CPU cores.

    python tools/demo.py            (or: make demo)

Draws a data set, trains two teachers, trains a student alone, from one teacher and from both,
all with the same schedule, tests every model on images that nothing was tuned on, exports
the best student and prints one table. What is finished is kept in `demo/` and not run again.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import mmkd  # noqa: F401  (before anything of mmdet)
from mmkd.engine.cli import user_errors
from mmkd.engine.progress import Progress, run_with_progress
from mmkd.errors import UserError

SPLITS = dict(train=1200, val=200, test=300)
EPOCHS = 8  # of configs/_base_/schedules/small_8e.py


class Stage(NamedTuple):
    """One training run: what to say, which config, and its rough share of the time."""

    title: str
    name: str
    cost: float
    teachers: tuple[str, ...] = ()

    @property
    def config(self) -> str:
        """Its config, named as the folder of its results."""
        return f'configs/demo/{self.name}.py'


TEACHERS = {
    'resnet50': Stage('Teacher ResNet-50', 'centernet_r50', 33),
    'hourglass': Stage('Teacher Hourglass', 'centernet_hourglass', 19),
}
STUDENTS = [
    Stage('Student ResNet-18, alone', 'centernet_r18', 9),
    Stage('Student ResNet-18, one teacher', 'centernet_st_r18', 16, ('resnet50',)),
    Stage('Student ResNet-18, two teachers', 'centernet_mt_r18', 22, ('resnet50', 'hourglass')),
]
STAGES = [*TEACHERS.values(), *STUDENTS]


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--dir', type=Path, default=Path('demo'), help='where everything is kept')
    return parser.parse_args()


@user_errors()
def main() -> None:
    """Run what is not there yet, then print the table."""
    args = parse_args()
    from mmkd.detection.data import draw_dataset

    start = time.monotonic()
    print(f'1. Drawing {sum(SPLITS.values())} images into {args.dir / "data"}', flush=True)
    args.dir.mkdir(parents=True, exist_ok=True)
    draw_dataset(args.dir / 'data', splits=SPLITS)
    progress = Progress([0 if finished(args.dir, stage) else stage.cost for stage in STAGES])
    for i, stage in enumerate(STAGES):
        if finished(args.dir, stage):
            print(f'{i + 2}. {stage.title}: already trained', flush=True)
            continue
        print(f'{i + 2}. {stage.title}: training {stage.config}', flush=True)
        train_and_test(args.dir, stage, progress, i)
        print(f'    mAP {read_map(args.dir, stage):.3f}', flush=True)
    best = max(STUDENTS, key=lambda stage: validation_map(args.dir, stage))
    exported = args.dir / 'student.onnx'
    print(f'{len(STAGES) + 2}. Exporting the best student ({best.title}) to {exported}', flush=True)
    call('tools/export.py', best.config, checkpoint(args.dir, best), '--out', exported,
         '--images', args.dir / 'data/JPEGImages/test_00000.jpg', folder=args.dir)
    print_table(args.dir, best, exported)
    print(f'Done in {(time.monotonic() - start) / 60:.1f} min; everything is in {args.dir}/.')


def checkpoint(folder: Path, stage: Stage) -> Path:
    """Where training leaves the stage's last weights."""
    return folder / stage.name / f'epoch_{EPOCHS}.pth'


def finished(folder: Path, stage: Stage) -> bool:
    """Whether an earlier run trained and tested this stage."""
    return checkpoint(folder, stage).exists() and (folder / stage.name / 'metrics.json').exists()


def train_and_test(folder: Path, stage: Stage, progress: Progress, index: int) -> None:
    """Run the two commands that a user would run, resuming what was interrupted."""
    work_dir = folder / stage.name
    if not checkpoint(folder, stage).exists():
        options = [f'teachers.{name}.checkpoint={checkpoint(folder, TEACHERS[name])}'
                   for name in stage.teachers]
        command = [sys.executable, 'tools/train.py', stage.config, '--work-dir', str(work_dir),
                   '--resume', '--cfg-options', 'default_hooks.logger.interval=10', *options]
        run_with_progress(command, work_dir / 'train.log', EPOCHS, progress, index,
                          environment(folder))
    call('tools/test.py', stage.config, checkpoint(folder, stage), '--work-dir', work_dir,
         '--out', work_dir / 'metrics.json', folder=folder)
    progress.finished(index)


def environment(folder: Path) -> dict[str, str]:
    """The data set that the demo's configs read, and an allocator that keeps what it has.

    By default glibc hands large blocks back after every step and has them zeroed again in the next:
    a sixth of a ResNet-50 step on two cores.
    """
    keep = {'MALLOC_MMAP_MAX_': '0', 'MALLOC_TRIM_THRESHOLD_': str(2 ** 33),
            'MALLOC_TOP_PAD_': str(2 ** 29)}
    return keep | os.environ | {'DRAWN_ROOT': f'{folder / "data"}/'}


def call(*command: object, folder: Path) -> None:
    """Run one of mmkd's tools quietly; its own message says what is wrong if it fails."""
    done = subprocess.run([sys.executable, *map(str, command)], env=environment(folder),
                          capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ['no output'])[-1]
        raise UserError(f'`python {" ".join(map(str, command))}` failed ({reason}); run it by '
                        f'itself with DRAWN_ROOT={folder / "data"}/')


def read_map(folder: Path, stage: Stage) -> float:
    """The stage's mAP on the test split, 0 to 1."""
    return json.loads((folder / stage.name / 'metrics.json').read_text())['pascal_voc/mAP']


def validation_map(folder: Path, stage: Stage) -> float:
    """The mAP on the validation split, by which the best student is chosen."""
    logs = sorted((folder / stage.name).glob('*/vis_data/scalars.json'))
    rows = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    return [row['pascal_voc/mAP'] for row in rows if 'pascal_voc/mAP' in row][-1]


def print_table(folder: Path, best: Stage, exported: Path) -> None:
    """Print and keep one line per model: parameters, mAP, latency and gain over 'alone'."""
    import torch

    from mmkd.deploy.detector_graph import ExportableCenterNet
    from mmkd.deploy.latency import measure, onnx_call, torch_call
    from mmkd.distillation import build_model, load_weights

    models = {stage: build_model(stage.config).eval() for stage in STAGES}
    for stage, model in models.items():
        load_weights(model, checkpoint(folder, stage))
    image = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    calls = {stage.name: torch_call(ExportableCenterNet(model), image)
             for stage, model in models.items()}
    times = measure(calls | dict(onnx=onnx_call(exported)))
    alone = read_map(folder, STUDENTS[0])
    rows = [('model', 'parameters', 'mAP', 'latency', 'gain')]
    for stage, model in models.items():
        gain = f'{read_map(folder, stage) - alone:+.3f}' if stage in STUDENTS[1:] else ''
        rows.append((stage.title, f'{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M',
                     f'{read_map(folder, stage):.3f}', f'{times[stage.name].median:.1f} ms', gain))
    rows.append((f'{best.title}, ONNX', '', '', f"{times['onnx'].median:.1f} ms", ''))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ['  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
             for row in rows]
    lines.insert(1, '-' * max(map(len, lines)))
    table = '\n'.join(lines)
    (folder / 'table.txt').write_text(table + '\n')
    print(f'\n{table}\n\nmAP: PASCAL VOC 2007 (11 points, IoU 0.5), {SPLITS["test"]} test images; '
          'latency: one image on this machine; gain: over the same student alone. One seed: '
          'docs/results.md says how far seeds differ.')


if __name__ == '__main__':
    main()
