"""The private names of mmengine that mmkd needs: all of them, and in no other file.

Checked with onedl-mmengine 0.10.12. A release may change such names without a word:
``tests/test_mmengine_private.py`` then fails and names what has changed.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from mmengine.hooks import CheckpointHook
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop, Runner

__all__ = ['HookOfCheckpoints', 'PreparedRunner', 'counts_epochs', 'counts_iterations',
           'goes_on_from', 'insert_last_value', 'schedulers_of', 'trains', 'update_val_interval']


def trains(runner: Runner) -> bool:
    """Tell whether a runner trains; ``runner.train_loop`` of one that only tests would build it."""
    return isinstance(runner._train_loop, BaseLoop)


def counts_epochs(runner: Runner) -> bool:
    """Tell whether a runner trains by epochs."""
    return isinstance(runner._train_loop, EpochBasedTrainLoop)


def counts_iterations(runner: Runner) -> bool:
    """Tell whether a runner trains by iterations alone."""
    return isinstance(runner._train_loop, IterBasedTrainLoop)


def goes_on_from(runner: Runner) -> str | None:
    """Return the checkpoint that a resumed run goes on from; None for a new run.

    ``''`` where mmengine itself looks for the newest one.
    """
    return (runner._load_from or '') if runner._resume else None


def update_val_interval(loop: EpochBasedTrainLoop | IterBasedTrainLoop) -> None:
    """Set ``loop.val_interval`` to what ``dynamic_intervals`` says of this time."""
    loop._decide_current_val_interval()


def schedulers_of(runner: Runner) -> Iterator[Any]:
    """Yield each of the runner's schedulers, of one or of several optimizers."""
    waiting = [runner.param_schedulers]
    while waiting:
        part = waiting.pop(0)
        if isinstance(part, (dict, list, tuple)):
            waiting = [*(part.values() if isinstance(part, dict) else part), *waiting]
        elif part is not None:
            yield part


def insert_last_value(scheduler: Any, place: int, value: float) -> None:
    """Tell a scheduler what it last set in a parameter group that is new at ``place``."""
    scheduler._last_value.insert(place, value)


class PreparedRunner(Runner):
    """mmengine's runner, with two moments of a run to take part in."""

    def on_logger_ready(self) -> None:
        """Do what is to be done as soon as there is a log to write to."""

    def on_model_ready(self) -> None:
        """Do what is to be done with weights and hooks in place, right before the first step."""

    def _log_env(self, env_cfg: dict) -> None:
        self.on_logger_ready()
        super()._log_env(env_cfg)

    def _maybe_compile(self, target: str) -> None:
        self.on_model_ready()


class HookOfCheckpoints(CheckpointHook):
    """mmengine's ``CheckpointHook``, with names for what happens around the writing of a file."""

    def saving_best(self, runner: Runner) -> AbstractContextManager:
        """Return what the writing of a checkpoint of the best metric happens within."""
        raise NotImplementedError

    def save_step(self, runner: Runner, step: int, meta: dict) -> None:
        """Write the checkpoint of an epoch or iteration, and remove what is too many."""
        raise NotImplementedError

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, float]) -> None:
        with self.saving_best(runner):
            super()._save_best_checkpoint(runner, metrics)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        self.save_step(runner, step, meta)
