"""Train and test what a study lacks, several runs at a time; go on where a kill left it."""

import json
import os
import queue
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch

from mmkd.engine.checkpoint_hook import latest_checkpoint
from mmkd.engine.run_folder import CONFIG
from mmkd.errors import UserError
from mmkd.files import write_atomically
from mmkd.study.plan import Cell, Study

if os.name == 'posix':
    import fcntl

__all__ = ['Result', 'Run', 'run_all', 'runs_of', 'teachers_of']

LOG = 'log.txt'


@dataclass(frozen=True)
class Result:
    """The metric after the last epoch, and after the one that was best on validation data."""

    last: float
    best: float | None
    last_step: int
    best_step: int | None
    command: str
    metric: str = ''


@dataclass(frozen=True)
class Run:
    """One training of one seed, in a folder of its own.

    ``validates``: whether its config has validation data, so that there is a best epoch.
    ``checkpoint``: what a teacher's training has to leave; where it is there already, it is tested
    and not trained.
    """

    study: Study
    cell: Cell
    folder: Path
    seed: int
    validates: bool = False
    checkpoint: Path | None = None

    @property
    def title(self) -> str:
        """What progress and messages call it."""
        return self.cell.title if self.checkpoint else f'{self.cell.title}, seed {self.seed}'

    @property
    def trained(self) -> Path:
        """The config as its training wrote it down, with everything chosen."""
        return self.folder / CONFIG

    @property
    def config(self) -> Path | str:
        """:attr:`trained`, or what the study names: trainings before 0.2.0 wrote another file."""
        return self.trained if self.trained.exists() else self.cell.config

    @property
    def result(self) -> Result | None:
        """What it came to, if it is finished; of a teacher, by the metric of this study."""
        found = Result(**json.loads(self.file.read_text())) if self.file.exists() else None
        # Studies with other metrics share their teachers.
        other = self.checkpoint is not None and found and found.metric != self.study.metric
        return None if other else found

    @property
    def file(self) -> Path:
        """Where the result is kept; teachers are shared by studies that judge on either split."""
        split = self.study.split
        return self.folder / ('result.json' if split == 'test' else f'result_{split}.json')


def runs_of(study: Study, folder: Path, seeds: Sequence[int], validates: bool) -> list[Run]:
    """Return the runs of a study's cells, all cells of a seed together."""
    return [Run(study, cell, folder / cell.name / f'seed{seed}', seed, validates)
            for seed in seeds for cell in study.cells]


def teachers_of(study: Study) -> list[Run]:
    """Return the runs of a study's teachers, in the folders of their checkpoints."""
    return [Run(study, teacher.cell, Path(teacher.checkpoint).parent, 0,
                checkpoint=Path(teacher.checkpoint)) for teacher in study.teachers]


def run_all(runs: Sequence[Run], jobs: int, told: Callable[[Run], None]) -> list[str]:
    """Finish every run, ``jobs`` at a time; return a line for each that failed.

    Args:
        runs: those that are finished cost nothing.
        jobs: the processor's threads are divided among them, and GPUs taken in turn: those of
            ``CUDA_VISIBLE_DEVICES``, or all.
        told: called with each run that is newly finished, one at a time.

    Raises:
        UserError: a folder holds the result of another command.
    """
    for run in runs:
        _refuse_another_run(run)
    missing = [run for run in runs if run.result is None]
    slots: queue.Queue[int] = queue.Queue()
    for slot in range(jobs):
        slots.put(slot)
    failed, started = [], time.monotonic()

    def one(run: Run) -> str | None:
        slot = slots.get()
        try:
            return _finish(run, _environment(slot, jobs))
        finally:
            slots.put(slot)

    pool = ThreadPoolExecutor(jobs)
    try:
        waiting = {pool.submit(one, run): run for run in missing}
        for done, future in enumerate(as_completed(waiting), 1):
            run, problem = waiting[future], future.result()
            minutes = (time.monotonic() - started) / 60
            left = minutes / done * (len(missing) - done)
            print(f'[{done}/{len(missing)}] {minutes:.1f} min, about {left:.0f} left: {run.title}: '
                  + (problem or f'{run.result.last * run.study.scale:.4g}'), flush=True)
            if problem:
                failed.append(f'{run.title}: {problem}')
            else:
                told(run)
    finally:  # what is interrupted begins no further run
        pool.shutdown(wait=False, cancel_futures=True)
    return failed


def _refuse_another_run(run: Run) -> None:
    """Check that a student's finished run is the one that the study describes today."""
    if run.checkpoint is not None or run.result is None:
        return
    # Until version 0.2.0 the commands were files.
    command = re.sub(r'^tools/train\.py ', 'mmkd train ', run.result.command)
    if command != ' '.join(_training(run)):
        raise UserError(f"'{run.folder}' holds the result of `{run.result.command}`, and the study "
                        'now says otherwise: give the variant another name, or remove the folder')


def _environment(slot: int, jobs: int) -> dict[str, str]:
    chosen = {'OMP_NUM_THREADS': str(max(1, (os.cpu_count() or 1) // jobs))} | os.environ
    named = os.environ.get('CUDA_VISIBLE_DEVICES')
    gpus = named.split(',') if named else [str(i) for i in range(torch.cuda.device_count())]
    if gpus:
        chosen['CUDA_VISIBLE_DEVICES'] = gpus[slot % len(gpus)]
    return chosen


def _finish(run: Run, environment: dict[str, str]) -> str | None:
    """Train, test and write the result; return what went wrong, or None."""
    run.folder.mkdir(parents=True, exist_ok=True)
    command = _training(run)
    try:
        if run.checkpoint is None or not run.checkpoint.exists():
            _call(run, command, environment)
        result = _judged(run, ' '.join(command), environment)
    except subprocess.CalledProcessError:
        lines = (run.folder / LOG).read_text(errors='replace').strip().splitlines()
        return f'{lines[-1] if lines else "no output"} (all of it: {run.folder / LOG})'
    except UserError as error:
        return str(error)
    write_atomically(run.file, json.dumps(
        vars(result) | dict(metric=run.study.metric), indent=2).encode())
    return None


def _training(run: Run) -> list[str]:
    options = {'randomness.seed': run.seed} | dict(run.cell.options)
    if run.validates:
        options |= {'default_hooks.checkpoint.save_best': run.study.metric,
                    'default_hooks.checkpoint.rule': 'greater'}
    return ['mmkd', 'train', run.cell.config, '--work-dir', str(run.folder), '--resume',
            *run.cell.choices, *(['--epochs', str(run.cell.epochs)] if run.cell.epochs else []),
            '--cfg-options',
            *(f'{name}={value}' for name, value in options.items())]


def _judged(run: Run, command: str, environment: dict[str, str]) -> Result:
    """Return the results of the last and the best epoch of a finished training."""
    validation = _validation(run) if run.validates or run.study.split == 'val' else {}
    best = max(validation, key=validation.__getitem__, default=None)
    if run.study.split == 'val':
        if not validation:
            raise UserError(f"'{run.cell.config}' was not validated by '{run.study.metric}': "
                            "correct `metric` in the study, or give it split='test'")
        last = max(validation)
        return Result(validation[last], validation[best], last, best, command)
    checkpoint = run.checkpoint or latest_checkpoint(run.folder)
    if checkpoint is None or not checkpoint.exists():
        raise UserError(f"the training left no '{run.checkpoint or run.folder}': correct the path "
                        "of the teacher's checkpoint in the study")
    last = _step(checkpoint)
    values = {last: _tested(run, checkpoint, environment)}
    if best is not None and best != last:
        [kept] = run.folder.glob(f'best_*_{best}.pth')
        values[best] = _tested(run, kept, environment)
    return Result(values[last], values.get(best), last, best, command)


def _step(checkpoint: Path) -> int:
    return int(re.search(r'(\d+)\.pth$', checkpoint.name)[1])


def _validation(run: Run) -> dict[int, float]:
    """Return the metric on validation data by epoch, or by iteration, as the log has it."""
    logs = sorted(run.folder.glob('*/vis_data/scalars.json'))
    rows = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    return {row['step']: row[run.study.metric] for row in rows if run.study.metric in row}


def _tested(run: Run, checkpoint: Path, environment: dict[str, str]) -> float:
    """Return the metric of a checkpoint on the test data of the config that was trained."""
    out = run.folder / f'test_{checkpoint.stem}.json'
    if not out.exists():
        config = [str(run.trained)] if run.trained.exists() else [
            run.cell.config, *run.cell.choices]
        _call(run, ['mmkd', 'test', config[0], str(checkpoint), *config[1:], '--work-dir',
                    str(run.folder), '--out', str(out)], environment)
    found = json.loads(out.read_text())
    if run.study.metric not in found:
        raise UserError(f"'{run.cell.config}' is judged by {', '.join(found)} and not by "
                        f"'{run.study.metric}': correct `metric` in the study")
    return float(found[run.study.metric])


def _call(run: Run, command: Sequence[str], environment: dict[str, str]) -> None:
    with open(run.folder / LOG, 'a', encoding='utf-8') as log:
        if os.name == 'posix':
            # The child has the lock, too, and keeps it where the study is killed and it is not.
            try:
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(f"'{run.folder}' is still being trained by a study that was "
                                'killed: wait until that training ends, or end it') from error
        subprocess.run([sys.executable, '-m', *command], env=environment,
                       stdout=log, stderr=log, check=True)
