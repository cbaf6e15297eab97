"""Run the benchmark, or some of its parts.

    python benchmarks/run.py [PART ...] [--rounds 15] [--threads 2] [--out results.csv]

Prints tables in Markdown, and with --out adds their rows to a CSV file, row by row. A ratio below
1 is slower than the baseline, and stays in the table. A part that fails is named, the others go
on, and the exit status is 1.
"""

import argparse
import csv
import dataclasses
import importlib
import os
import platform
import subprocess
import sys
import traceback
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path

import cv2
import torch

import mmkd  # noqa: F401  (before MMDetection)

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for `harness` and `parts`, whoever imports this

from harness import Options, Result  # noqa: E402

COLUMNS = ('part', 'name', 'baseline', 'baseline_ms', 'ms', 'ratio', 'low', 'high', 'rounds',
           'threads', 'device', 'cpu', 'torch', 'malloc', 'commit', 'date', 'note')


def part_names() -> list[str]:
    """Return the names of all parts."""
    return sorted(path.stem for path in (HERE / 'parts').glob('*.py'))


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('parts', nargs='*', metavar='PART',
                        help=f'of {", ".join(part_names())} (default: all)')
    parser.add_argument('--rounds', type=int, default=Options.rounds)
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--out', type=Path, help='a CSV file to add the rows to')
    parser.add_argument('--quick', action='store_true',
                        help='tiny sizes, to see that a part runs; the numbers mean nothing')
    args = parser.parse_args(arguments)
    unknown = set(args.parts) - set(part_names())
    if unknown:
        parser.error(f"there is no part '{min(unknown)}': choose of {', '.join(part_names())}")
    if min(args.rounds, args.threads) < 1:
        parser.error('--rounds and --threads are at least 1')
    return args


def machine(threads: int) -> dict[str, object]:
    """Return the columns that are the same in every row of a run."""
    return dict(
        threads=threads,
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu', cpu=_cpu(),
        torch=torch.__version__,
        malloc='kept' if 'MALLOC_TRIM_THRESHOLD_' in os.environ else 'default', commit=_commit(),
        date=datetime.now(timezone.utc).strftime('%Y-%m-%d'))


def _cpu() -> str:
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.is_file() else ()
    models = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return f'{os.cpu_count()} x {models[0] if models else platform.processor()}'


def _commit() -> str:
    try:
        return subprocess.run(['git', 'describe', '--always', '--dirty'], cwd=HERE, text=True,
                              capture_output=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ''


def rows(results: Iterable[Result], common: dict[str, object]) -> list[dict[str, object]]:
    """Turn results into the rows of the CSV file; four significant digits."""
    return [{name: f'{value:.4g}' if isinstance(value, float) else value
             for name, value in (dataclasses.asdict(one) | common).items()} for one in results]


def add_to_csv(path: Path, new: Sequence[dict[str, object]]) -> None:
    """Add rows to the file, below a line of the columns' names if it is new."""
    begin = not path.is_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'a', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator='\n')
        if begin:
            writer.writeheader()
        writer.writerows(new)


HEAD = f'| what | ms | baseline | ms | ratio (quartiles) | note |\n|{" --- |" * 6}'


def table_row(one: Result) -> str:
    """Return one line of a part's table."""
    ratio = f'{one.ratio:.2f} ({one.low:.2f} ... {one.high:.2f})'
    return (f'| {one.name} | {one.ms:.4g} | {one.baseline} | {one.baseline_ms:.4g} | '
            f'{ratio} | {one.note} |')


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts; return the exit status."""
    args = parse_args(arguments)
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    options, common = Options(args.rounds, args.quick), machine(args.threads)
    print(', '.join(f'{name} {value}' for name, value in common.items() if value), '\n')
    failed = []
    for name in args.parts or part_names():
        print(f'## {name}\n\n{HEAD}', flush=True)
        try:
            for one in importlib.import_module(f'parts.{name}').measure(options):
                print(table_row(one), flush=True)
                if args.out is not None:
                    add_to_csv(args.out, rows([one], common))
        except Exception as error:  # the others go on, whatever it is
            traceback.print_exc()
            failed.append(f'{name} ({type(error).__name__}: {error})')
        print(flush=True)
    for line in failed:
        print(f'failed: {line}', file=sys.stderr)
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
