"""Memory and open files over a long training: `python -m tests.kills.flat --iterations 2000`."""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `kills`, `helpers`, as in conftest.py

import torch

import mmkd.engine.launch  # noqa: F401
from kills.run import ended_as, forked
from kills.trainings import Trainings

NAMES = ('detector, live teachers', 'detector, cached teacher', 'cohort, PCL')
EPOCH = 100
"""Iterations."""
GROWTH = 4.0
"""Megabytes that the second half may add: of what is logged the latest 10 000 numbers are kept."""


def main():
    """Parse the arguments, train, print a table."""
    parser = argparse.ArgumentParser(prog='python -m tests.kills.flat', description=__doc__)
    parser.add_argument('--iterations', type=int, default=2000)
    parser.add_argument('--trainings', nargs='*', default=NAMES)
    args = parser.parse_args()
    torch.set_num_threads(1)
    grown = False
    with tempfile.TemporaryDirectory() as temporary:
        trainings = Trainings(Path(temporary), images=EPOCH * 6 // 5)
        columns = [args.iterations * quarter // 4 for quarter in (1, 2, 3, 4)]
        print(f'| training | {" | ".join(f"MB after {count}" for count in columns)} | '
              f'files open after {columns[0]} | after {columns[-1]} |\n{"| --- " * 7}|')
        for name in args.trainings:
            rows = _footprint(trainings, name, args.iterations)
            print(f'| {name} | {" | ".join(f"{rows[count][0]:.0f}" for count in columns)} | '
                  f'{rows[columns[0]][1]:.0f} | {rows[columns[-1]][1]:.0f} |', flush=True)
            grown |= (rows[columns[-1]][0] > rows[columns[1]][0] + GROWTH
                      or rows[columns[-1]][1] > rows[columns[0]][1])
    sys.exit(grown)


def _footprint(trainings, name, iterations):
    """Train; return megabytes and open files after some numbers of iterations."""
    folder = trainings.folder / name.split(',')[1].split()[0]
    options = [f'train_cfg.max_epochs={iterations // EPOCH}', 'train_cfg.val_interval=5',
               'default_hooks.checkpoint.interval=5', 'default_hooks.footprint.type=Footprint',
               f'default_hooks.footprint.every={iterations // 4}']
    if name.startswith('detector'):
        options += [f'train_dataloader.dataset.length={2 * EPOCH}',
                    'train_dataloader.num_workers=0']
    said = trainings.folder / 'said.txt'
    ended = ended_as([forked(trainings.arguments(name, folder, options), said)], patience=3600)
    if ended != 'ended':
        raise RuntimeError(f'{name} {ended}: {said.read_text()[-2000:]}')
    rows = (map(float, line.split())
            for line in (folder / 'work/footprint.txt').read_text().splitlines())
    return {int(count): numbers for count, *numbers in rows}


if __name__ == '__main__':
    main()
