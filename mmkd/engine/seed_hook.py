"""Make every epoch's (or iteration's) randomness a function of the seed and its number alone."""

import random
from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmkd.mmengine_private import counts_iterations
from mmkd.registry import HOOKS

__all__ = ['EpochSeedHook']


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seed Python, NumPy and PyTorch at the start of every epoch.

    A run resumed at an epoch's end then draws the augmentations (and dropout masks) that the
    uninterrupted run would have drawn. Holds for loading in the main process and for workers that
    are started anew each epoch; with ``persistent_workers=True`` a resumed run is as good, but
    not the same. It also ends a habit of mmengine's own seeding: workers started anew would
    repeat the same random numbers in every epoch.

    Where a loop counts iterations, what a network draws depends on seed and iteration. Images come
    in the order of the uninterrupted run, with other augmentations from the first one after the
    resume.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Let the workers of the training data derive their seeds from the main process."""
        runner.train_dataloader.worker_init_fn = partial(_seed_worker, rank=get_rank())

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed this process."""
        # Iterations done so far, where no epochs are counted: a resumed run draws other numbers.
        _seed(_mix(runner.seed, runner.epoch, _rank(runner),
                   *([runner.iter] if runner.iter and counts_iterations(runner) else [])))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed this process, where no epochs are counted."""
        if counts_iterations(runner):
            _seed(_mix(runner.seed, runner.epoch, _rank(runner), runner.iter))


def _rank(runner: Runner) -> int:
    return get_rank() if runner.cfg.get('randomness', {}).get('diff_rank_seed') else 0


def _seed_worker(worker_id: int, rank: int) -> None:
    # PyTorch has given the worker a seed: a number drawn in the main process (the same on all
    # ranks unless diff_rank_seed is set) plus the worker's id. It told only torch of it.
    _seed(_mix(torch.initial_seed(), rank))


def _mix(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
