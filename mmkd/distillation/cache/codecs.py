"""How a tapped value is stored."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mmkd.distillation.taps import map_tensors

__all__ = ['Codec', 'Column', 'DenseCodec', 'batched', 'stacked']

Column = Tensor | Sequence[Tensor]
"""One array of every image of a batch: a tensor ``(B, ...)``, or a tensor each."""


class Codec(Protocol):
    """Turns the value of a tap into arrays for each image, and back."""

    name: str
    """Changes whenever what is stored would."""

    def encode(self, value: Any) -> list[list[np.ndarray]]:
        """Return each image's arrays, always as many."""

    def decode(self, arrays: Sequence[Column]) -> Any:
        """Return the value for a batch, in float32, on the arrays' device."""


class DenseCodec:
    """Every number of the last tensor in a tap's value, rounded to one dtype.

    The last tensor is what a term takes of nested outputs: the finest level, the last stack.

    Args:
        dtype: ``'float16'``, or ``'float32'`` for numbers as they were.
    """

    def __init__(self, dtype: str = 'float16') -> None:
        self.dtype = dtype
        self.name = f'last tensor, {dtype}'

    def encode(self, value: Any) -> list[list[np.ndarray]]:
        """Return the images' slices."""
        found: list[Tensor] = []
        map_tensors(found.append, value)
        return [[array] for array in stacked(found[-1], self.dtype)]

    def decode(self, arrays: Sequence[Column]) -> Tensor:
        """Stack the slices, in float32."""
        return batched(arrays[0])


def batched(column: Column) -> Tensor:
    """Return a column as one tensor, in float32."""
    if isinstance(column, Tensor):
        return column.float()
    return torch.stack([own.float() for own in column])  # autocast on a CPU stacks no float16


def stacked(value: Tensor, dtype: str) -> np.ndarray:
    """Return ``value`` on the CPU, rounded to ``dtype`` and within its range.

    Float16 ends at 65504; an infinity would make every loss one.
    """
    target = getattr(torch, dtype)
    limit = torch.finfo(target).max
    return value.detach().float().clamp(-limit, limit).to(target).contiguous().cpu().numpy()
