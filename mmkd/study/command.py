"""What ``mmkd study`` does, from the file to the verdict."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from mmkd.engine.checkpoint_hook import latest_checkpoint
from mmkd.errors import UserError, did_you_mean
from mmkd.files import write_atomically
from mmkd.study.plan import Study, read_study, settled, what_differs
from mmkd.study.runs import Run, run_all, runs_of, teachers_of
from mmkd.study.tables import append_row, by_cell, data_hash, draw_points, table

__all__ = ['run_study']


def run_study(path: str, seeds: Sequence[int] | None = None, jobs: int = 2,
              variants: Sequence[str] | None = None, out: Path | None = None) -> None:
    """Run what a study lacks, and write and print what it found.

    Args:
        path: of the study file.
        seeds: in place of the study's.
        jobs: trainings at a time.
        variants: of the study, those to run beside the baseline; None for all.
        out: the folder of its runs, tables and picture; ``work_dirs/studies/NAME`` by default.

    Raises:
        UserError: the study cannot be read, compares unequal budgets, or some of its runs failed.
    """
    if jobs < 1:
        raise UserError(f'--jobs is {jobs}: give 1 or more')
    study = _chosen(read_study(path), variants)
    out = out or Path('work_dirs/studies') / study.name
    configs = {cell.name: settled(cell) for cell in study.cells}
    for name, text in what_differs(study, configs).items():
        print(f"'{name}' differs from the baseline in: {text}", flush=True)
    base = configs['baseline']
    if f'{study.split}_dataloader' not in base:
        raise UserError(f"'{study.cells[0].config}' has no {study.split}_dataloader: set `split` "
                        'of the study to what it has')
    data = data_hash(base, study.split)
    runs = runs_of(study, out, tuple(seeds or study.seeds), bool(base.get('val_cfg')))
    teachers = teachers_of(study)
    out.mkdir(parents=True, exist_ok=True)

    failed = run_all(teachers, jobs, lambda run: None)
    lost = {str(run.checkpoint) for run in teachers if run.result is None}
    able = [run for run in runs if not lost & _checkpoints(configs[run.cell.name])]
    failed += run_all(able, jobs, lambda run: append_row(out / 'results.csv', run, data))
    for run in runs:  # a kill may have come between a result and its row
        if run.result:
            append_row(out / 'results.csv', run, data)
    text = table(study, teachers, runs)
    write_atomically(out / 'table.md', (text + '\n').encode())
    draw_points(study, runs, out / 'points.png')
    print(f'\n{text}\n\nGO needs a mean gain of {study.threshold:g} and an interval without 0. The '
          f'points: {out / "points.png"}', flush=True)
    if study.picture:
        _draw(study, teachers, runs, out / 'comparison.jpg')
    if failed:
        left = len(runs) - len(able)
        unbegun = f'; {left} runs that learn from it were not begun' if left else ''
        raise UserError(f'{len(failed)} failed: {"; ".join(failed)}{unbegun}. The same command '
                        'tries them again')


def _checkpoints(cfg: Config) -> set[str]:
    """Return the files of a config's teachers."""
    return {str(entry.get('checkpoint')) for entry in (cfg.get('teachers') or {}).values()}


def _chosen(study: Study, variants: Sequence[str] | None) -> Study:
    if variants is None:
        return study
    names = [cell.name for cell in study.cells]
    for name in variants:
        if name not in names:
            raise UserError(f"--variants: '{name}' is none of {', '.join(names[1:])}."
                            f'{did_you_mean(name, names)}')
    return dataclasses.replace(study, cells=tuple(
        cell for cell in study.cells if cell.name in ('baseline', *variants)))


def _draw(study: Study, teachers: Sequence[Run], runs: Sequence[Run], file: Path) -> None:
    """Draw the best teacher, and the baseline and a variant of the first seed."""
    from mmkd.visualization import Column, draw_comparison

    found = by_cell(study, runs)
    if not {'baseline', study.picture} <= found.keys():
        return
    shown = [found[name][0] for name in ('baseline', study.picture)]
    columns = [Column(run.cell.title, run.config, latest_checkpoint(run.folder)) for run in shown]
    finished = [run for run in teachers if run.result]
    if finished:
        best = max(finished, key=lambda run: run.result.last)
        columns.append(Column(best.title, best.config, best.checkpoint))
    draw_comparison(columns, file)
    print(f'The same test images, drawn: {file}')
