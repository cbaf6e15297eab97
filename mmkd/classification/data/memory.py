"""Data sets that are one tensor: a batch is one indexing operation."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.registry import FUNCTIONS
from torch import Tensor
from torch.utils.data import Dataset

from mmkd.classification.data.structures import ClassificationSample
from mmkd.errors import UserError, did_you_mean

__all__ = ['MemoryDataset', 'balanced_first', 'checked_split', 'whole_batch']

SPLITS = ('train', 'test')


class MemoryDataset(Dataset):
    """Images and labels in memory.

    PyTorch's ``DataLoader`` asks for a whole batch at once through ``__getitems__``, so a batch
    costs one indexing operation and no worker process. In a config::

        train_dataloader = dict(
            batch_size=64, num_workers=0, dataset=dict(type='CIFAR100', data_root='data'),
            sampler=dict(type='DefaultSampler', shuffle=True), collate_fn=dict(type='whole_batch'))

    Args:
        images: ``(N, 3, H, W)``, uint8, RGB.
        labels: ``(N,)``, int64, in ``0 .. len(classes) - 1``.
        classes: the classes' names.
        max_samples: keep that many images, see :func:`balanced_first`; None for all.

    Attributes:
        labels: ``(N,)``, int64, of the images kept.
        metainfo: ``dict(classes=...)``.
        augments: whether what is asked for twice may differ.

    Raises:
        UserError: there is no image, a label lies outside the classes, or ``max_samples`` is
            below 1.
    """

    augments = False

    def __init__(self, images: Tensor, labels: Tensor, classes: Sequence[str],
                 max_samples: int | None = None) -> None:
        assert images.dtype == torch.uint8 and images.ndim == 4 and images.shape[1] == 3
        assert labels.dtype == torch.int64 and labels.shape == images.shape[:1]
        name = type(self).__name__
        if not len(labels):
            raise UserError(f'{name} has no image: point data_root to a folder with images')
        if labels.min() < 0 or labels.max() >= len(classes):
            raise UserError(f'{name} has labels from {labels.min()} to {labels.max()} but '
                            f'{len(classes)} classes: put the official files there')
        kept = balanced_first(labels, max_samples)
        self.images = images[kept] if len(kept) < len(labels) else images
        self.labels = labels[kept]
        self.metainfo = dict(classes=tuple(classes))

    def __len__(self) -> int:
        return len(self.labels)

    def identity(self) -> str:
        """Return a hash of all images and labels."""
        sums = hashlib.sha256(self.images.contiguous().numpy())
        sums.update(self.labels.numpy())
        return sums.hexdigest()

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the batch that holds the one image ``index``."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Any]:
        """Return the batch of ``indices``.

        Returns:
            ``inputs``, ``(B, 3, H, W)`` uint8, and ``data_samples``, one
            :class:`ClassificationSample` with ``labels`` and ``indices``.
        """
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return dict(inputs=self.images[chosen],
                    data_samples=ClassificationSample(labels=self.labels[chosen], indices=chosen))


@FUNCTIONS.register_module()
def whole_batch(data: dict[str, Any] | Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Collate what is a batch already: pass it on.

    A wrapper around a data set (mmengine's ``num_batch_per_epoch`` makes one) may hand over a
    list of batches of one image each instead; they are joined field by field.
    """
    if isinstance(data, dict):
        return data
    samples = [batch['data_samples'] for batch in data]
    joined = ClassificationSample()
    for name, value in samples[0].items():
        values = [getattr(sample, name) for sample in samples]
        joined.set_field(_joined(values, type(value)), name)
    return dict(inputs=torch.cat([batch['inputs'] for batch in data]), data_samples=joined)


def _joined(values: list[Any], kind: type) -> Any:
    if issubclass(kind, Tensor):
        return torch.cat(values)
    return np.concatenate(values) if issubclass(kind, np.ndarray) else kind.joined(values)


def balanced_first(labels: Tensor, count: int | None) -> Tensor:
    """Number the first ``count`` samples, taking turns among the classes.

    The first sample of every class comes before the second of any, so that the classes differ by
    one sample at most as long as none runs out.

    Args:
        labels: ``(N,)``, int64.
        count: how many to take; None or more than there are for all.

    Returns:
        ascending sample numbers, ``(min(count, N),)``, int64.

    Raises:
        UserError: ``count`` is below 1 or not an integer.
    """
    if count is None:
        return torch.arange(len(labels))
    if not isinstance(count, int) or count < 1:
        raise UserError(f'max_samples is {count!r}: give a number of images above 0, or None')
    by_class = torch.argsort(labels, stable=True)
    sizes = torch.bincount(labels)
    starts = sizes.cumsum(0) - sizes
    turn = torch.empty_like(labels)
    turn[by_class] = torch.arange(len(labels)) - starts[labels[by_class]]
    return torch.argsort(turn, stable=True)[:count].sort().values


def checked_split(split: str) -> str:
    """Return ``split`` if it is one of ``'train'`` and ``'test'``.

    Raises:
        UserError: it is not.
    """
    if split not in SPLITS:
        raise UserError(f"split is {split!r}: give 'train' or 'test'."
                        f'{did_you_mean(str(split), SPLITS)}')
    return split
