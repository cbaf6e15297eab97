"""A run that waits in its second epoch to be killed. Configs name this module in their imports."""

import os
import time
from pathlib import Path

from mmengine.hooks import Hook

import mmkd  # noqa: F401
from mmkd.registry import HOOKS


@HOOKS.register_module(force=True)
class PauseInTheSecondEpoch(Hook):
    """Waits for ever behind the first step of epoch 2, if PAUSE is set."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.epoch == 1 and 'PAUSE' in os.environ:
            Path(runner.work_dir, f'paused_{runner.rank}').touch()
            time.sleep(600)
