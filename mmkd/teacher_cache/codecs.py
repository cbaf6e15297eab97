"""How a tapped leaf is stored."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mmkd.errors import UserError

__all__ = ['Codec', 'Column', 'DenseCodec', 'batched', 'check_first_axis', 'stacked']

Column = Tensor | Sequence[Tensor]
"""One array of every image of a batch: a tensor ``(B, ...)``, or a tensor each."""


class Codec(Protocol):
    """Turns a leaf of a teacher into arrays for each image, and back."""

    name: str
    """Changes whenever what is stored would."""

    def encode(self, leaf: Tensor) -> list[list[np.ndarray]]:
        """Return each image's arrays, always as many."""

    def decode(self, arrays: Sequence[Column]) -> Tensor:
        """Return the leaf for a batch, in float32, on the arrays' device."""


class DenseCodec:
    """Every number, rounded to one dtype.

    Args:
        dtype: ``'float16'``, or ``'float32'`` for numbers as they were.
    """

    def __init__(self, dtype: str = 'float16') -> None:
        self.dtype = dtype
        self.name = f'every number, {dtype}'

    def encode(self, leaf: Tensor) -> list[list[np.ndarray]]:
        """Return the images' slices."""
        return [[array] for array in stacked(leaf, self.dtype)]

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


def check_first_axis(leaf: Tensor, images: int, name: str, teacher: str) -> None:
    """Check that a leaf has a row for each image of a batch.

    Raises:
        UserError: it has not, and cannot be stored image by image.
    """
    if leaf.dim() == 0 or len(leaf) != images:
        raise UserError(f"'{name}' of teacher '{teacher}' has the shape {tuple(leaf.shape)} for "
                        f'{images} images and cannot be cached image by image: pick a part with '
                        f"one row for each image (as '{name}:-1' does of a stack of layers), or "
                        'leave its term out of teacher_cache.terms')
