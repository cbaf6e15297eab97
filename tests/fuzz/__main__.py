"""Read many damaged files: `python -m tests.fuzz --inputs 10000 --seed 0`."""

import argparse
import logging
import resource
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `archives`, as in conftest.py

from fuzz.run import KINDS, run


def main():
    """Parse the arguments, read the inputs, print what was bad and a table."""
    parser = argparse.ArgumentParser(prog='python -m tests.fuzz', description=__doc__)
    parser.add_argument('--inputs', type=int, default=10000, help='of all kinds together')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--kinds', nargs='*', help=', '.join(kind.name for kind in KINDS))
    parser.add_argument('--only', type=int, help='one input alone, by its number')
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, 8 << 30))
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, number, found in run(Path(folder), args.inputs, args.seed, args.kinds, args.only):
            counts = rows.setdefault(name, Counter())
            counts['inputs'] += 1
            counts[found if found in ('read', 'refused') else 'bad'] += 1
            if found not in ('read', 'refused'):
                print(f'{name} {number}: {found}', flush=True)
    rows['all'] = sum(rows.values(), Counter())
    columns = ('inputs', 'read', 'refused', 'bad')
    print(f'| kind | {" | ".join(columns)} |\n| --- {"| --- " * len(columns)}|')
    for name, counts in rows.items():
        print(f'| {name} | {" | ".join(str(counts[column]) for column in columns)} |')
    sys.exit(rows['all']['bad'] > 0)


if __name__ == '__main__':
    main()
