"""Keep the cost of a step from growing with the number of steps before it."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmkd.registry import HOOKS

__all__ = ['ShortHistoryHook']


@HOOKS.register_module()
class ShortHistoryHook(Hook):
    """Keep only the latest values of every number that is logged.

    mmengine keeps the last million of each and copies them all in order to add one. By the end of
    240 epochs of CIFAR that is a millisecond or more in every iteration (``benchmarks/run.py
    runner_overhead``), and 20 MB in every checkpoint. What was logged is in the log's files.

    Args:
        length: how many to keep; at least the longest window of ``log_processor``, which is an
            epoch for ``window_size='epoch'``.
    """

    def __init__(self, length: int = 10_000) -> None:
        self.length = length

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: dict[str, Any] | None = None) -> None:
        """Limit what is there by now."""
        for buffer in runner.message_hub.log_scalars.values():
            buffer.max_length = self.length
