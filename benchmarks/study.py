"""Does distillation help? Students alone and from teachers, over several seeds, as one table.

    python benchmarks/study.py bccd_small               # blood cells; BCCD_ROOT=... before it
    python benchmarks/study.py voc_animals --seeds 0 1 2 3 4
    DRAWN_ROOT=demo/data/ python benchmarks/study.py demo    # after `make demo`

Trains what is missing, two single-threaded trainings at a time (--jobs), and tests it on the test
split. What is finished is not run again; what was interrupted goes on. Prints, for each kind of
student, the mAP of each seed, their mean and standard deviation, and the gain over the student
alone of the same seed with its 95 % interval; and draws what the labels, the student alone, the one
from two teachers, and a teacher have on the same test images.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from mmkd.evaluation.paired import paired_difference

ROWS = dict(alone='alone', single='one teacher', both='two teachers',
            source="two teachers, the source's reading")


class Study(NamedTuple):
    """Configs of one data set: teachers and the epochs of each, the students and theirs."""

    teachers: dict[str, int]
    students: tuple[str, ...]
    epochs: int
    single: str = 'st_'

    def config(self, row: str, student: str) -> str:
        """Return the name of a student's config."""
        prefix = dict(alone='', single=self.single, both='mt_', source='mt_source_')[row]
        return f'centernet_{prefix}{student}'


STUDIES = {
    'demo': Study({'r50': 14, 'hourglass': 8}, ('r18', ), 8, 'st_r50_'),
    'bccd_small': Study({'r50': 72, 'hourglass': 24}, ('r18', 'mobilenetv2'), 24),
    'voc_animals': Study({'r18_wide': 30, 'mobilenetv2_wide': 30},
                         ('mobilenetv2', 'r18'), 8),
}


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('study', choices=list(STUDIES))
    parser.add_argument('--students', nargs='+', help='default: all of the study')
    parser.add_argument('--rows', nargs='+', choices=list(ROWS), default=list(ROWS),
                        help='default: all')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--jobs', type=int, default=2, help='trainings at a time')
    return parser.parse_args()


def main() -> None:
    """Run what is missing, then print the table."""
    args = parse_args()
    study = STUDIES[args.study]
    students = args.students or study.students
    out = Path('demo' if args.study == 'demo' else f'work_dirs/{args.study}')
    train_all([(args.study, f'centernet_{name}', out / f'centernet_{name}', 0, epochs)
               for name, epochs in study.teachers.items()], args.jobs)
    train_all([(args.study, study.config(row, student), out / f'seed{seed}' /
                study.config(row, student), seed, study.epochs)
               for seed in args.seeds for student in students for row in args.rows], args.jobs)
    print('| model | mAP | deviation | each seed | gain, 95 % interval |\n| --- | --- | --- | --- '
          '| --- |')
    for name in study.teachers:
        print(f'| teacher {name} | {mean_ap(out / f"centernet_{name}"):.1f} | | one seed | |')
    for student in students:
        found = {row: [mean_ap(out / f'seed{seed}' / study.config(row, student))
                       for seed in args.seeds] for row in args.rows}
        for row, values in found.items():
            print(line(f'{student}, {ROWS[row]}', values,
                       found.get('alone') if row != 'alone' else None))
        if {'alone', 'both'} <= set(args.rows):
            print(f'\n{picture(study, args.study, out, student, args.seeds[0])}\n')


def picture(study: Study, name: str, out: Path, student: str, seed: int) -> Path:
    """Draw the better teacher and the student of one seed, alone and from two teachers."""
    from mmkd.visualization import Column, draw_comparison

    def column(title: str, config: str, folder: Path, epochs: int) -> Column:
        return Column(title, f'configs/{name}/{config}.py', folder / f'epoch_{epochs}.pth')

    best = max(study.teachers, key=lambda teacher: mean_ap(out / f'centernet_{teacher}'))
    runs = [(title, study.config(row, student)) for title, row in
            (('student alone', 'alone'), ('distilled student', 'both'))]
    file = out / f'comparison_{student}.jpg'
    draw_comparison([*(column(title, config, out / f'seed{seed}' / config, study.epochs)
                       for title, config in runs),
                     column('teacher', f'centernet_{best}', out / f'centernet_{best}',
                            study.teachers[best])], file)
    return file


def line(title: str, values: list[float], baseline: list[float] | None) -> str:
    """Return one line of the table."""
    deviation = f'{statistics.stdev(values):.1f}' if len(values) > 1 else ''
    gain = ''
    if baseline is not None:
        difference = paired_difference(values, baseline)
        gain = f'{difference.mean:+.1f} ({difference.low:+.1f} to {difference.high:+.1f})'
    each = ', '.join(f'{value:.1f}' for value in values)
    return f'| {title} | {statistics.mean(values):.1f} | {deviation} | {each} | {gain} |'


def train_all(runs: list[tuple[str, str, Path, int, int]], jobs: int) -> None:
    """Train and test, ``jobs`` at a time, what has no metrics yet."""
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda run: train(*run), runs))


def train(study: str, name: str, out: Path, seed: int, epochs: int) -> None:
    """Run the two commands that a user would run."""
    config, metrics = f'configs/{study}/{name}.py', out / 'metrics.json'
    if metrics.exists():
        return
    print(f'{config} -> {out}', file=sys.stderr, flush=True)
    out.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {'OMP_NUM_THREADS': '1'}
    with open(out / 'log.txt', 'a', encoding='utf-8') as log:
        for command in (
                ('tools/train.py', config, '--work-dir', out, '--resume', '--cfg-options',
                 f'randomness.seed={seed}'),
                ('tools/test.py', config, out / f'epoch_{epochs}.pth', '--work-dir', out,
                 '--out', metrics)):
            subprocess.run([sys.executable, *map(str, command)], env=environment, stdout=log,
                           stderr=log, check=True)


def mean_ap(out: Path) -> float:
    """Return the mAP on the test split, in percent."""
    return 100 * json.loads((out / 'metrics.json').read_text())['pascal_voc/mAP']


if __name__ == '__main__':
    main()
