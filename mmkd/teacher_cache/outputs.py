"""Stored outputs on their way from the disk to the loss."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmkd.errors import UserError
from mmkd.teacher_cache.codecs import Column
from mmkd.teacher_cache.shards import Entry

__all__ = ['StoredOutputs', 'columns']


@dataclass(eq=False)
class StoredOutputs:
    """What teachers say of some images.

    It travels as a field of their data samples, through worker processes and to the device.
    """

    entries: Mapping[str, Sequence[Entry]]
    """For each teacher's name those of the images."""

    def to(self, *args: Any, **kwargs: Any) -> 'StoredOutputs':
        """Move the data, as ``Tensor.to`` does."""
        return StoredOutputs({name: [entry._replace(data=entry.data.to(*args, **kwargs))
                                     for entry in own] for name, own in self.entries.items()})

    @classmethod
    def joined(cls, several: Iterable['StoredOutputs']) -> 'StoredOutputs':
        """Join those of several images, in their order."""
        joined: dict[str, list[Entry]] = {}
        for outputs in several:
            for name, own in outputs.entries.items():
                joined.setdefault(name, []).extend(own)
        return cls(joined)

    def check_view(self, seen: np.ndarray, image: int, view: int) -> None:
        """Make sure that the teachers saw this very view.

        Args:
            seen: :func:`..views.fingerprint` of the view, which the first array must equal.
            image: number of the image.
            view: number of the view.

        Raises:
            UserError: they saw another one.
        """
        for name, [entry] in self.entries.items():
            there = entry.layout[0]
            stored = entry.data.numpy()[:4 * int(np.prod(there[1]))].view(np.float32)
            if there[1] != seen.shape or not np.allclose(stored, seen.ravel(), atol=1.0, rtol=0):
                raise UserError(
                    f"view {view} of image {image} is not what teacher '{name}' saw when its cache "
                    'was built: the images, or a library that augments them, changed; delete the '
                    'cache to build it anew')


def columns(entries: Sequence[Entry], device: torch.device) -> list[Column]:
    """Return each array of all entries, on ``device``; moves what is not there, in one piece.

    Args:
        entries: of the images of a batch.
        device: where the arrays are wanted.
    """
    if all(entry.layout == entries[0].layout for entry in entries):
        data = torch.stack([entry.data for entry in entries]).to(device, non_blocking=True)
        return [_array(data, *place) for place in entries[0].layout]
    rows = [[_array(entry.data.to(device, non_blocking=True), *place) for place in entry.layout]
            for entry in entries]
    return [list(column) for column in zip(*rows, strict=True)]


def _array(data: Tensor, dtype: str, shape: tuple[int, ...], start: int) -> Tensor:
    """The array that begins at byte ``start`` of the last dimension."""
    target = getattr(torch, dtype)
    size = target.itemsize * math.prod(shape)
    found = data[..., start:start + size].view(target)
    return found.reshape(*data.shape[:-1], *shape)
