"""What a study found: rows of a CSV file, a table, a picture of the points."""

import csv
import datetime
import hashlib
import io
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

import mmkd
from mmkd.engine.environment import commit
from mmkd.evaluation.paired import paired_difference, verdict
from mmkd.files import write_atomically
from mmkd.registry import DATASETS
from mmkd.study.plan import Study
from mmkd.study.runs import Run
from mmkd.teacher_cache.identity import content_hash

__all__ = ['append_row', 'data_hash', 'draw_points', 'table']

COLUMNS = ('study', 'cell', 'seed', 'split', 'metric', 'last', 'last_step', 'best', 'best_step',
           'data', 'commit', 'mmkd', 'torch', 'machine', 'date', 'command')


def data_hash(cfg: Config, split: str) -> str:
    """Return a short hash of the images and labels of training and of the split judged by."""
    init_default_scope(cfg.get('default_scope', 'mmkd'))
    sums = hashlib.sha256()
    for part in ('train', split):
        sums.update(content_hash(DATASETS.build(cfg[f'{part}_dataloader'].dataset)).encode())
    return sums.hexdigest()[:12]


def append_row(file: Path, run: Run, data: str) -> None:
    """Append a finished run to a CSV file, unless it has that run.

    Args:
        file: made if it does not exist.
        run: finished.
        data: :func:`data_hash`.
    """
    key = (run.study.name, run.cell.name, str(run.seed))
    rows = []
    if file.exists():
        with open(file, newline='', encoding='utf-8') as text:
            rows = list(csv.DictReader(text))
    if any((row['study'], row['cell'], row['seed']) == key for row in rows):
        return
    result = run.result
    values = dict(
        study=run.study.name, cell=run.cell.name, seed=run.seed, split=run.study.split,
        metric=run.study.metric, last=result.last, last_step=result.last_step, best=result.best,
        best_step=result.best_step, data=data, commit=commit(), mmkd=mmkd.__version__,
        torch=torch.__version__, machine=_machine(), command=result.command,
        date=datetime.date.today().isoformat())
    added = io.StringIO(newline='')
    writer = csv.DictWriter(added, COLUMNS)
    if not rows:
        writer.writeheader()
    writer.writerow(values)
    before = file.read_bytes() if rows else b''
    write_atomically(file, before + added.getvalue().encode())


def _machine() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f'{platform.machine()}, {torch.get_num_threads()} threads'


def table(study: Study, teachers: Sequence[Run], runs: Sequence[Run]) -> str:
    """Return the Markdown table of all cells whose runs are finished for every seed."""
    lines = [f'| {study.metric}, {study.split} | mean | deviation | each seed | '
             'gain, 95 % interval | best epoch | verdict |', '| --- ' * 7 + '|']
    for run in teachers:
        if run.result:
            value = run.result.last * study.scale
            lines.append(f'| {run.title} | {value:.1f} | | one seed | | | |')
    found = by_cell(study, runs)
    for cell in study.cells:
        if cell.name not in found:
            continue
        last = [run.result.last * study.scale for run in found[cell.name]]
        best = [run.result.best * study.scale for run in found[cell.name]
                if run.result.best is not None]
        gain = judged = ''
        if cell.name != 'baseline' and 'baseline' in found:
            base = [run.result.last * study.scale for run in found['baseline']]
            difference = paired_difference(last, base)
            gain = f'{difference.mean:+.1f}'
            if len(last) > 1:
                gain += f' ({difference.low:+.1f} to {difference.high:+.1f})'
            judged = verdict(last, base, study.threshold)
        lines.append(' | '.join((
            f'| {cell.title}', f'{statistics.mean(last):.1f}',
            f'{statistics.stdev(last):.1f}' if len(last) > 1 else '',
            ', '.join(f'{value:.1f}' for value in last), gain,
            f'{statistics.mean(best):.1f}' if len(best) == len(last) else '', judged)) + ' |')
    return '\n'.join(lines)


def by_cell(study: Study, runs: Sequence[Run]) -> Mapping[str, list[Run]]:
    """Return the runs of each cell that is finished for every seed, in the order of the seeds."""
    found = {cell.name: [run for run in runs if run.cell.name == cell.name]
             for cell in study.cells}
    return {name: group for name, group in found.items() if group and all(
        run.result for run in group)}


def draw_points(study: Study, runs: Sequence[Run], file: Path) -> None:
    """Draw each seed's result, and each variant's gain with its mean and interval."""
    from matplotlib.figure import Figure

    found = by_cell(study, runs)
    titles = {cell.name: cell.title for cell in study.cells if cell.name in found}
    values = {name: [run.result.last * study.scale for run in found[name]] for name in titles}
    variants = [name for name in titles if name != 'baseline'] if 'baseline' in found else []
    figure = Figure(figsize=(10, 1.5 + 0.45 * len(titles)), layout='constrained')
    left, right = figure.subplots(1, 2)
    for place, name in enumerate(titles):
        left.plot(values[name], [place] * len(values[name]), 'o', color='tab:blue', alpha=0.6)
        left.plot([statistics.mean(values[name])], [place], '|', color='black', markersize=16)
    left.set(yticks=range(len(titles)), yticklabels=titles.values(),
             ylim=(len(titles) - 0.5, -0.5),
             xlabel=f'{study.metric}, {study.split}: each seed, and the mean')
    for place, name in enumerate(variants):
        mean, low, high = paired_difference(values[name], values['baseline'])
        gains = [one - other for one, other in zip(values[name], values['baseline'], strict=True)]
        right.plot(gains, [place] * len(gains), 'o', color='tab:blue', alpha=0.6)
        if len(gains) > 1:
            right.plot([low, high], [place, place], color='black')
        right.plot([mean], [place], '|', color='black', markersize=16)
    right.axvline(0, color='grey', linewidth=1)
    right.axvline(study.threshold, color='grey', linewidth=1, linestyle='dotted')
    right.set(yticks=range(len(variants)), yticklabels=[titles[name] for name in variants],
              ylim=(max(len(variants), 1) - 0.5, -0.5),
              xlabel=f'gain over {titles.get("baseline", "")}, 95 % interval')
    figure.savefig(file, dpi=120)
