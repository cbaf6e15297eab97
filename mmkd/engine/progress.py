"""A bar for every epoch, where a training is watched on a terminal."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from mmkd.engine.run_folder import main_metric

__all__ = ['ProgressHook', 'progress_on_terminal']

LINES = ('Epoch(', 'Iter(', 'Saving checkpoint at')
"""How the lines begin that a bar stands for, or that come with each of its epochs."""
BAR = '{desc} {percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt}{postfix}'


@contextmanager
def progress_on_terminal(runner: Runner) -> Iterator[None]:
    """Show bars in place of a line for every few iterations, if the output is a terminal.

    The log file has these lines all the same; warnings and the like appear above the bar.
    """
    if not (sys.stdout.isatty() and is_main_process()):
        yield
        return
    hook, logger = ProgressHook(), MMLogger.get_current_instance()
    runner.register_hook(hook, 'VERY_LOW')  # the summary comes after the last bar
    before = list(logger.handlers)
    [screen] = [handler for handler in before if type(handler) is logging.StreamHandler]
    with logging_redirect_tqdm([logger]):
        for handler in set(logger.handlers) - set(before):  # what stands in for the screen's
            handler.setLevel(screen.level)
            handler.filters += screen.filters
            handler.addFilter(lambda record: not record.getMessage().startswith(LINES))
        try:
            yield
        finally:
            hook.close()


class ProgressHook(Hook):
    """Draws the bars: iterations, loss, the time left, and the metric once it is known.

    Where iterations and no epochs are counted, one bar is the whole training.
    """

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._start, self._first = 0.0, 0
        self._loss = self._metric = self._left = ''

    def before_train(self, runner: Runner) -> None:
        """Begin to measure."""
        self._start, self._first = time.monotonic(), runner.iter

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Draw a new bar at the first iteration of an epoch."""
        by_epoch = runner.train_loop.__class__.__name__.startswith('Epoch')
        if self._bar is not None and (batch_idx or not by_epoch):
            return
        self.close()
        title = f'epoch {runner.epoch + 1}/{runner.max_epochs}' if by_epoch else 'training'
        total = len(runner.train_dataloader) if by_epoch else runner.max_iters
        self._bar = tqdm(total=total, initial=batch_idx, desc=title, bar_format=BAR,
                         file=sys.stdout, dynamic_ncols=True)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: dict[str, Any] | None = None) -> None:
        """Move the bar."""
        done = runner.iter + 1
        left = (time.monotonic() - self._start) / (done - self._first) * (runner.max_iters - done)
        self._left = f'{tqdm.format_interval(left)} left'
        if 'train/loss' in (logged := runner.message_hub.log_scalars):
            self._loss = f'loss {logged["train/loss"].current():.4g}'
        self._show(refresh=False)
        self._bar.update()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Add the metric."""
        if self._bar is None or (found := main_metric(metrics)) is None:
            return
        name, value = found
        self._metric = f'{name} {value:.4f}'
        self._show()

    def after_train(self, runner: Runner) -> None:
        """Leave the last bar."""
        self.close()

    def _show(self, refresh: bool = True) -> None:
        self._bar.set_postfix_str(', '.join(filter(None, (self._loss, self._metric, self._left))),
                                  refresh)

    def close(self) -> None:
        """Leave the bar where it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
