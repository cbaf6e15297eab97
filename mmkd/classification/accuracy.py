"""Top-k accuracy, and the two numbers that the literature reports of it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import master_only
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmkd.files import write_atomically
from mmkd.registry import HOOKS, METRICS

__all__ = ['BestAndLastHook', 'TopKAccuracy']


@METRICS.register_module()
class TopKAccuracy(BaseMetric):
    """Share of images, in percent, whose label is among the ``k`` highest scores.

    Gives ``accuracy/top<k>`` for every ``k``. Ties are broken as ``torch.topk`` does. A ``k`` above
    the number of classes counts every image.

    Args:
        topk: the values of ``k``.
    """

    default_prefix = 'accuracy'

    def __init__(self, topk: Sequence[int] = (1, 5), collect_device: str = 'cpu') -> None:
        super().__init__(collect_device=collect_device)
        self.topk = tuple(topk)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep of every image at which rank its label is (0 for the highest score).

        Args:
            data_batch: not used.
            data_samples: one dict per batch with ``scores`` ``(B, C)`` and ``labels`` ``(B,)``.
        """
        for sample in data_samples:
            scores, labels = sample['scores'], sample['labels']
            k = min(max(self.topk), scores.shape[1])
            hits = scores.topk(k, dim=1).indices == labels[:, None]
            ranks = torch.where(hits.any(1), hits.int().argmax(1), k)
            # One entry per image: mmengine cuts off what a sampler repeated by their number.
            self.results.extend(ranks.tolist())

    def compute_metrics(self, results: list[int]) -> dict[str, float]:
        """Return the shares in percent."""
        ranks = torch.tensor(results)
        return {f'top{k}': 100 * (ranks < k).double().mean().item() for k in self.topk}


@HOOKS.register_module()
class BestAndLastHook(Hook):
    """Keeps the accuracy of every epoch, and logs the last and the best when training ends.

    Published tables differ in which of the two they print (RepDistiller's: the last, DKD's: the
    best), and the best is chosen on the evaluated images. ``accuracy.json`` in the work directory
    holds ``{epoch: {metric: percent}}``.
    """

    priority = 'BELOW_NORMAL'
    """Before ResultsHook, whose row tells a resumed run that everything of this epoch was kept."""
    metric = 'accuracy/top1'
    file_name = 'accuracy.json'

    def __init__(self) -> None:
        self.epochs: dict[int, dict[str, float]] = {}

    def before_train(self, runner: Runner) -> None:
        """Take up the epochs that a resumed run has behind it."""
        file = Path(runner.work_dir, self.file_name)
        if runner.epoch and file.is_file():
            kept = {int(epoch): values for epoch, values in json.loads(file.read_text()).items()}
            self.epochs = {e: values for e, values in kept.items() if e <= runner.epoch}

    @master_only
    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Keep the accuracy of this epoch."""
        if metrics and self.metric in metrics:
            self.epochs[runner.epoch] = metrics
            write_atomically(Path(runner.work_dir, self.file_name),
                             json.dumps(self.epochs, indent=1).encode())

    @master_only
    def after_train(self, runner: Runner) -> None:
        """Log both."""
        if self.epochs:
            top1 = {epoch: values[self.metric] for epoch, values in self.epochs.items()}
            last, best = max(top1), max(top1, key=top1.get)
            runner.logger.info(f'top-1: last {top1[last]:.2f} (epoch {last}), best '
                               f'{top1[best]:.2f} (epoch {best}, chosen on these very images)')
