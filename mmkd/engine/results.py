"""``results.csv``: a row for every epoch of a run, for people and for plots; ``check.json``."""

import csv
import io
import json
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process, master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmkd.checkpoints import load_checkpoint_safely
from mmkd.distillation import DistillationHook
from mmkd.engine.run_folder import BEST, CHECK, RESULTS, is_better, main_metric
from mmkd.errors import UserError
from mmkd.files import link_atomically, write_atomically
from mmkd.mmengine_private import counts_epochs, goes_on_from, trains
from mmkd.registry import HOOKS

__all__ = ['VALIDATION', 'ResultsHook', 'read_results']

VALIDATION = 'val/'
"""How the columns of validation metrics begin."""
FIRST = ('epoch', 'iterations', 'seconds')
NOT_KEPT = ('time', 'data_time')
UNFINISHED = 'unfinished_row'
Row = dict[str, float]


@HOOKS.register_module()
class ResultsHook(Hook):
    """Writes ``results.csv``, and knows which epoch was the best.

    A row has the epoch, the iterations so far, the seconds of its training, what was logged of
    training (the mean over the epoch of each loss and of the gradient's norm; the learning rate
    at its end), and, under ``val/``, the validation metrics, where there was a validation. Where
    iterations and no epochs are counted, a row is a pass over the data or what lies between two
    validations. A resumed run goes on with the rows before its checkpoint, and with what the
    checkpoint holds of a row that was not finished. The whole file is written anew and
    renamed each time: a kill leaves the rows before, and a new column stands in the header.

    The best epoch, by :func:`~mmkd.engine.run_folder.main_metric`, is ``best_epoch`` in the
    message hub, the last validation ``last_validation``.

    What a distillation found before its first epoch is written to ``check.json``.
    """

    priority = 'LOW'  # before the checkpoint hook, which keeps the best

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._sums: dict[str, list[float]] = {}
        self._start = 0.0
        self._first = 0
        """The iteration that this run, which may go on from another, begins with."""

    def before_train(self, runner: Runner) -> None:
        """Take up the rows of a resumed run."""
        rows = read_results(Path(runner.work_dir, RESULTS)) if runner.iter else []
        self.rows = [row for row in rows if row['iterations'] <= runner.iter]
        if self.rows and self.rows[-1]['iterations'] == runner.iter:
            self._sums = {}  # this row was finished after the checkpoint
        for name in ('best_epoch', 'last_validation'):
            runner.message_hub.runtime_info.pop(name, None)
        self._restore(runner)
        self._first = runner.iter
        self._start = time.monotonic()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Save what there is of a row that is not finished."""
        if self._sums:
            checkpoint[UNFINISHED] = self._sums

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Go on with it in a resumed run."""
        if goes_on_from(runner) is not None:
            self._sums = checkpoint.get(UNFINISHED, {})

    def is_validated(self, iterations: int) -> bool:
        """Tell whether the validation after so many iterations has its place in a row."""
        return any(row['iterations'] == iterations and any(map(_of_validation, row))
                   for row in self.rows)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: dict[str, Any] | None = None) -> None:
        """Add up what this iteration logged."""
        if runner.iter == self._first:
            self._write_check(runner)
        for name, buffer in runner.message_hub.log_scalars.items():
            if name.startswith('train/') and (name := name[6:]) not in NOT_KEPT:
                value = buffer.current()
                if name.endswith('lr'):
                    self._sums[name] = [value, 1]
                else:
                    total = self._sums.setdefault(name, [0.0, 0])
                    total[0] += value
                    total[1] += 1
        if not counts_epochs(runner) and (runner.iter + 1) % len(runner.train_dataloader) == 0:
            self._add(runner, runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        """Write the row."""
        self._add(runner, runner.iter, runner.epoch + 1)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Add the metrics to the row, and see whether they are the best."""
        if not trains(runner):
            return
        self._add(runner, runner.iter, runner.epoch)
        found = {f'{VALIDATION}{name}': number for name, value in (metrics or {}).items()
                 if (number := main_metric({name: value})) is not None}
        if self.rows and found:
            self.rows[-1] |= {name: value for name, (_, value) in found.items()}
            self._write(runner)
        main = main_metric(metrics)
        if main is not None:
            _judge(runner, *main, self.rows[-1] if self.rows else
                   dict(epoch=runner.epoch, iterations=runner.iter))
        self._start = time.monotonic()

    def _add(self, runner: Runner, iterations: int, epoch: int | None = None) -> None:
        if not self._sums:
            return
        if not counts_epochs(runner):
            epoch = round(iterations / len(runner.train_dataloader), 2)
        self.rows.append(dict(
            epoch=epoch, iterations=iterations, seconds=round(time.monotonic() - self._start, 2),
            **{name: total / count for name, (total, count) in self._sums.items()}))
        self._sums = {}
        self._start = time.monotonic()
        self._write(runner)

    def _write_check(self, runner: Runner) -> None:
        found = next((hook.checked for hook in runner.hooks
                      if isinstance(hook, DistillationHook)), None)
        if found:
            _write_file(runner, CHECK, json.dumps(found, indent=1, default=float).encode())

    def _write(self, runner: Runner) -> None:
        _write_file(runner, RESULTS, _as_csv(self.rows))

    def _restore(self, runner: Runner) -> None:
        """Find the best of the rows again, and the checkpoint that belongs to it.

        A checkpoint is saved before its epoch is validated, so it does not know.
        """
        name = next((name for row in self.rows for name in row if _of_validation(name)), '')
        validated = [row for row in self.rows if name in row and _may_be_best(runner, row)]
        if not name or not validated:
            return
        metric, kept = name[len(VALIDATION):], _iterations_of(Path(runner.work_dir, BEST))
        best = validated[0]
        for row in validated[1:]:
            best = row if is_better(metric, row[name], best[name]) else best
        if best['iterations'] != kept and not _link_epoch(runner, best):
            # Of what is left, what best.pth holds; or the next validation makes a new one.
            best = next((row for row in validated if row['iterations'] == kept), None)
        if best is not None:
            _judge(runner, metric, best[name], best)
        runner.message_hub.update_info('last_validation', (metric, validated[-1][name]))


@master_only
def _write_file(runner: Runner, name: str, content: bytes) -> None:
    try:
        write_atomically(Path(runner.work_dir, name), content)
    except OSError as error:  # the run goes on; the next epoch writes the rows again
        runner.logger.warning(f"cannot write '{runner.work_dir}/{name}' "
                              f'({error.strerror or error}): make room there')


def _judge(runner: Runner, name: str, value: float, row: Row) -> None:
    best = runner.message_hub.runtime_info.get('best_epoch')
    if _may_be_best(runner, row) and (best is None or is_better(name, value, best['value'])):
        runner.message_hub.update_info('best_epoch', dict(
            metric=name, value=value, iterations=int(row['iterations']),
            when=f'epoch {row["epoch"]:g}' if counts_epochs(runner)
            else f'iteration {row["iterations"]:g}'))
    runner.message_hub.update_info('last_validation', (name, value))


def _may_be_best(runner: Runner, row: Row) -> bool:
    """Whether a row is not of the time before the student was trained for int8."""
    return row['iterations'] > runner.message_hub.runtime_info.get('judged_from', -1)


def _of_validation(name: str) -> bool:
    return name.startswith(VALIDATION)


def _iterations_of(checkpoint: Path) -> int | None:
    try:
        return load_checkpoint_safely(checkpoint)['meta']['iter']
    except (UserError, KeyError):
        return None


def _link_epoch(runner: Runner, row: Row) -> bool:
    """Make ``best.pth`` of the checkpoint of a row: the run was killed before it could."""
    names = (f'epoch_{row["epoch"]:g}.pth', f'iter_{row["iterations"]:g}.pth')
    for path in (Path(runner.work_dir, name) for name in names):
        if _iterations_of(path) == row['iterations']:
            if is_main_process():
                link_atomically(path, Path(runner.work_dir, BEST))
            return True
    return False


def _as_csv(rows: Sequence[Row]) -> bytes:
    names = list(dict.fromkeys(name for row in rows for name in row))
    names = [*FIRST, *(name for name in names if name not in FIRST and not _of_validation(name)),
             *(name for name in names if _of_validation(name))]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval='', lineterminator='\n')
    writer.writeheader()
    for row in rows:
        # Of a validation every digit: a resumed run compares its own with it.
        writer.writerow({name: f'{value:.6g}' if isinstance(value, float)
                         and not _of_validation(name) else value for name, value in row.items()})
    return text.getvalue().encode()


def read_results(path: str | Path) -> list[Row]:
    """Return the rows of a ``results.csv`` as numbers; empty cells are left out.

    A missing file has no rows; a row that is no row of numbers is passed over with a warning.
    """
    if not Path(path).is_file():
        return []
    rows = []
    with open(path, newline='', encoding='utf-8', errors='replace') as file:
        for line in csv.DictReader(file):
            try:
                row = {name: _number(value) for name, value in line.items() if value and name}
                if math.isfinite(row['epoch'] + row['iterations']):
                    rows.append(row)
            except (ValueError, KeyError):
                logging.getLogger(__name__).warning("a row of '%s' is passed over: %s", path, line)
    return rows


def _number(text: str) -> float:
    return int(text) if text.lstrip('-').isdigit() else float(text)
