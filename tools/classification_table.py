r"""List every published cell with the command that runs it and what was measured.

    python tools/classification_table.py
    python tools/classification_table.py --student resnet8x4 --out table.md

Teachers that the listed cells need come first. What is read are files
work_dirs/DATA/RUN/accuracy.json, where RUN is METHOD_TEACHER_STUDENT (of a network alone
ce_NETWORK), with _batch512 behind it where the command says so. A further seed lies in RUN_seed1,
RUN_seed2 and so on, put there by

    mmkd train classifier ... --work-dir work_dirs/DATA/RUN_seed1 \
        --cfg-options randomness.seed=1

Several seeds give their mean ± standard deviation; the best epoch is that of the highest top-1. A
run counts once its last epoch is there.
"""

import argparse
import json
import re
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import mmkd  # noqa: F401  (before anything of mmdet)
from mmkd.classification.published import CELLS, TEACHERS, Cell
from mmkd.engine.cli import user_errors
from mmkd.engine.config import load_config
from mmkd.errors import UserError, did_you_mean
from mmkd.files import write_atomically

BASES = Path(__file__).parents[1] / 'configs/_base_/classification'
FILTERS = ('data', 'method', 'teacher', 'student')
HEAD = ('teacher', 'student', 'method', 'published', 'last', 'best', 'runs', 'command')
METRICS = ('accuracy/top1', 'accuracy/top5')

Epochs = dict[int, dict[str, float]]


class Measured(NamedTuple):
    """What the runs of a cell gave."""

    last: list[list[float]]
    """Of each finished run top-1 and top-5 after the last epoch."""
    best: list[list[float]]
    """The same after the epoch with the highest top-1."""
    unfinished: list[int]
    """Of every other run the epoch that it has reached."""


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in FILTERS:
        parser.add_argument(f'--{name}', help=f'only the cells of this {name}')
    parser.add_argument('--work-dirs', default='work_dirs', help='where the runs are')
    parser.add_argument('--out', metavar='FILE', help='write there instead of printing')
    return parser


def wanted_cells(args: argparse.Namespace) -> dict[str, list[Cell]]:
    """Return the cells that pass the filters and, before them, their teachers, by table.

    Raises:
        UserError: a filter names what no table has, or all of them leave nothing.
    """
    filters = {name: getattr(args, name) for name in FILTERS if getattr(args, name)}
    for name, value in filters.items():
        known = {getattr(cell, name) for cells in CELLS.values() for cell in cells} - {None}
        if value not in known:
            raise UserError(f"--{name} '{value}' is in no published table."
                            + (did_you_mean(value, known)
                               or f' Give one of {", ".join(sorted(known))}'))
    chosen = {title: [cell for cell in cells if all(
        getattr(cell, name) == value for name, value in filters.items())]
        for title, cells in CELLS.items()}
    needed = {(cell.data, cell.teacher) for cells in chosen.values() for cell in cells}
    if not needed:
        asked = ' '.join(f'--{name} {value}' for name, value in filters.items())
        raise UserError(f'no published cell fits {asked}: leave one of them out')
    teachers = [cell for cell in TEACHERS if (cell.data, cell.student) in needed]
    return {title: cells for title, cells in {'Teachers': teachers, **chosen}.items() if cells}


def read_epochs(path: Path) -> Epochs:
    """Read an ``accuracy.json``.

    Raises:
        UserError: it is not what ``BestAndLastHook`` writes.
    """
    try:
        epochs = {int(epoch): dict(values) for epoch, values in
                  json.loads(path.read_text()).items()}
        if not epochs or not all(isinstance(values[METRICS[0]], float)
                                 for values in epochs.values()):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"'{path}' does not hold the accuracy of every epoch: delete it, or "
                        'run its command again') from error
    return epochs


def find_runs(folder: Path, run: str) -> Iterator[Path]:
    """Yield the files of a cell: the plain run's, then those of further seeds."""
    further = sorted(path for path in folder.glob(f'{run}_seed*')
                     if re.fullmatch(r'_seed\d+', path.name.removeprefix(run)))
    for path in [folder / run, *further]:
        if (path / 'accuracy.json').is_file():
            yield path / 'accuracy.json'


def measure(folder: Path, cell: Cell, max_epochs: int) -> Measured:
    """Collect what the runs of ``cell`` below ``folder`` gave.

    Raises:
        UserError: from :func:`read_epochs`.
    """
    measured = Measured([], [], [])
    for path in find_runs(folder / cell.data, cell.run):
        epochs = read_epochs(path)
        last, best = max(epochs), max(epochs, key=lambda epoch: epochs[epoch][METRICS[0]])
        if last < max_epochs:
            measured.unfinished.append(last)
            continue
        metrics = METRICS if cell.data == 'imagenet' else METRICS[:1]
        measured.last.append([epochs[last][metric] for metric in metrics])
        measured.best.append([epochs[best][metric] for metric in metrics])
    return measured


def summary(values: Sequence[Sequence[float]]) -> str:
    """Format the mean of each metric and, of several runs, the sample standard deviation."""
    texts = []
    for metric in zip(*values, strict=True):
        spread = f' ± {statistics.stdev(metric):.2f}' if len(metric) > 1 else ''
        texts.append(f'{statistics.mean(metric):.2f}{spread}')
    return ' / '.join(texts)


def row(cell: Cell, measured: Measured, max_epochs: int) -> list[str]:
    """Return the cells of one line of markdown."""
    published = [f'{value:.2f}' for value in (cell.top1, cell.top5) if value is not None]
    runs = [str(len(measured.last))] if measured.last else []
    runs += [f'not finished: epoch {epoch} of {max_epochs}' for epoch in measured.unfinished]
    return [cell.teacher or '', cell.student,
            cell.method + (f', batch {cell.batch_size}' if cell.batch_size else ''),
            ' / '.join(published), summary(measured.last), summary(measured.best),
            '; '.join(runs), f'`{cell.command}`']


def markdown(tables: dict[str, list[Cell]], folder: Path) -> str:
    """Return all tables as text."""
    epochs = {data: load_config(BASES / f'{data}.py').train_cfg.max_epochs
              for data in {cell.data for cells in tables.values() for cell in cells}}
    lines = []
    for title, cells in tables.items():
        lines += [f'### {title}', '', _line(HEAD), _line(['---'] * len(HEAD))]
        for cell in cells:
            limit = epochs[cell.data]
            lines.append(_line(row(cell, measure(folder, cell, limit), limit)))
        lines.append('')
    return '\n'.join(lines)


def _line(texts: Sequence[str]) -> str:
    return f'| {" | ".join(texts)} |'


@user_errors()
def main() -> None:
    """Print the tables or write them to a file."""
    args = arguments().parse_args()
    text = markdown(wanted_cells(args), Path(args.work_dirs))
    if args.out is None:
        print(text, end='')
        return
    try:
        write_atomically(args.out, text.encode())
    except OSError as error:
        raise UserError(f"cannot write '{args.out}' ({error.strerror or error}): give --out a "
                        'file in a folder that can be written') from error


if __name__ == '__main__':
    main()
