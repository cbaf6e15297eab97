"""Kill many trainings and resume them: `python -m tests.kills --kills 50 --seed 0`."""

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `kills`, `helpers`, as in conftest.py

import torch

import mmkd.engine.launch  # noqa: F401  once, for all the processes that are forked from this one
from kills.run import run

COLUMNS = ('kills', 'resumed', 'equal', 'different')


def main():
    """Parse the arguments, kill, print what differs and a table."""
    parser = argparse.ArgumentParser(prog='python -m tests.kills', description=__doc__)
    parser.add_argument('--kills', type=int, default=50, help='of all trainings together')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--trainings', nargs='*', help='some alone, by their names in the table')
    parser.add_argument('--keep', metavar='FOLDER', help='work there and leave what differs')
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = {}
    with tempfile.TemporaryDirectory() as temporary:
        for life in run(Path(args.keep or temporary), args.kills, args.seed, args.trainings):
            counts = rows.setdefault((life.training, life.kind), Counter())
            counts['kills'] += life.kills
            counts['resumed'] += life.resumed
            counts['different' if life.wrong else 'equal'] += life.kills
            print(f'{life.training}, {life.kind}: {life.kills} kills, '
                  f'{"different" if life.wrong else "equal"}', file=sys.stderr)
            for line in life.wrong:
                print(f'{life.training}, {life.kind}: {line}', flush=True)
    rows['all', ''] = sum(rows.values(), Counter())
    print(f'| training | kind of kill | {" | ".join(COLUMNS)} |\n| --- {"| --- " * 5}|')
    for names, counts in sorted(rows.items(), key=lambda row: row[0][0] == 'all'):
        print(f'| {" | ".join(names)} | {" | ".join(str(counts[name]) for name in COLUMNS)} |')
    sys.exit(rows['all', '']['different'] > 0)


if __name__ == '__main__':
    main()
