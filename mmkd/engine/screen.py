"""What a run says while one watches; the file in its work directory has all of it."""

import logging
import os
import time
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook, LoggerHook
from mmengine.logging import MMLogger
from mmengine.runner import Runner

import mmkd
from mmkd.engine.run_folder import BEST, CONFIG, LAST
from mmkd.registry import HOOKS

__all__ = ['SummaryHook', 'TimedLoggerHook', 'keep_in_file', 'shown']

FILE_ONLY = ('environment\n', f'\n{"-" * 60}\nSystem environment:', 'Config:\n',
             'Hooks will be executed', 'Distributed training is not used', 'Exp name:',
             'Checkpoints will be saved to', 'Saving checkpoint at',
             'Please make sure that the mlflow server',
             '"FileClient" will be deprecated', '"HardDiskBackend" is the alias')
"""How messages begin that are long, or that nobody waits for."""
SECONDS = 20
"""The longest silence while steps go on."""


def keep_in_file(logger: MMLogger) -> None:
    """Leave what :data:`FILE_ONLY` says out of the screen."""
    for handler in logger.handlers:
        if type(handler) is logging.StreamHandler:
            handler.addFilter(lambda record: not record.getMessage().startswith(FILE_ONLY))


@HOOKS.register_module()
class TimedLoggerHook(LoggerHook):
    """mmengine's, that also logs a step if the line before is more than 20 seconds old."""

    _told = 0.0

    def before_train(self, runner: Runner) -> None:
        """Begin to wait."""
        super().before_train(runner)
        self._told = time.monotonic()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: dict[str, Any] | None = None) -> None:
        """Log every ``interval`` iterations, or when it is time."""
        interval, now = self.interval, time.monotonic()
        due = now - self._told > SECONDS
        self.interval = 1 if due else interval
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        self.interval = interval
        if due or (batch_idx + 1) % interval == 0:
            self._told = now


@HOOKS.register_module()
class SummaryHook(Hook):
    """Says at the start what runs where, and at the end how good it got and what to do next.

    What it got to is known from :class:`~mmkd.engine.results.ResultsHook`.
    """

    priority = 'LOWEST'

    def before_train(self, runner: Runner) -> None:
        """Log where everything is written."""
        device = next(runner.model.parameters()).device
        where = (torch.cuda.get_device_name(device) if device.type == 'cuda' else
                 f'CPU ({torch.get_num_threads()} of {os.cpu_count()} cores)')
        runner.logger.info(f'mmkd {mmkd.__version__}, PyTorch {torch.__version__}, {where}; '
                           f'config, environment and this log: {shown(runner.work_dir)}')

    def after_train(self, runner: Runner) -> None:
        """Log the summary."""
        found, folder = runner.message_hub.runtime_info, Path(runner.work_dir)
        best, last = found.get('best_epoch'), found.get('last_validation')
        text = 'Finished'
        if last is not None and best is not None:
            text += (f': {last[0]} {last[1]:.4f}, the best {best["value"]:.4f} after '
                     f'{best["when"]}')
        weights = [folder / name for name in (BEST, LAST) if (folder / name).is_file()]
        for path in weights:
            text += f'. {path.stem.capitalize()}: {shown(path)}'
        if weights and not (folder / BEST).is_file():
            text += f' (no {BEST}: there was no validation)'
        if weights and (folder / CONFIG).is_file():
            # Backbones that learn without labels have nothing to test on.
            test = '' if runner.cfg.get('test_dataloader') is None else (
                f'mmkd test {shown(folder)}, or ')
            text += f'. Next: {test}mmkd report {shown(folder)}'
        runner.logger.info(text)


def shown(path: str | Path) -> str:
    """Return a path as one would type it here."""
    short = os.path.relpath(path)
    return str(path) if short.startswith('..') else short
