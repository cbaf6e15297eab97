"""How a teacher's CenterNet heatmap is stored."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmkd.teacher_cache.codecs import Column, batched, stacked

__all__ = ['HeatmapCodec']

SIDE = 4
"""Cells in a row of a block."""


class HeatmapCodec:
    r"""A heatmap ``(B, C, H, W)`` where it varies.

    The heatmap is cut into blocks of 4 x 4 cells. A block is stored cell by cell, or, if it
    hardly varies, as its mean. The blocks that vary least are stored as means as long as all of
    them together lose no more than ``tolerance`` of the map's energy,
    ``sum_{dropped} (Y - mean)^2 <= tolerance * sum Y^2``: then no peak is lost, however low, and
    the background keeps its sum. What that does to the terms is measured in docs/performance.md.

    Args:
        dtype: of what is stored: ``'float16'``, or ``'float32'``, which stores every block, so that
            the maps come back as they were.
        tolerance: see above.
    """

    def __init__(self, dtype: str = 'float16', tolerance: float = 1e-4) -> None:
        self.dtype = dtype
        self.tolerance = tolerance if dtype == 'float16' else -1.0
        self.name = f'heatmap, {dtype}, to {self.tolerance:g} of its energy'

    def encode(self, leaf: Tensor) -> list[list[np.ndarray]]:
        """Return for each image: its size, means, numbers of blocks, and their cells."""
        size = np.array(leaf.shape[-2:], np.int32)
        return [[size, *self._encoded(heatmap)] for heatmap in leaf.float()]

    def _encoded(self, heatmap: Tensor) -> list[np.ndarray]:
        blocks = _blocks(heatmap)
        means = blocks.mean(1)
        kept = _that_vary(blocks, means, self.tolerance)
        return [stacked(means, self.dtype), kept.to(torch.int32).cpu().numpy(),
                stacked(blocks[kept], self.dtype)]

    def decode(self, arrays: Sequence[Column]) -> Tensor:
        """Return the heatmaps of a batch."""
        sizes, means, kept, cells = arrays
        means = batched(means)
        blocks = means.flatten()[:, None].repeat(1, SIDE * SIDE)
        numbers = torch.cat([own + i * means.shape[1] for i, own in enumerate(kept)])
        blocks[numbers.long()] = torch.cat([own.float() for own in cells])
        return _unblocked(blocks, len(means), *sizes[0].tolist())


def _blocks(heatmap: Tensor) -> Tensor:
    """``(C, H, W) -> (C H/4 W/4, 16)``, with zeros beyond the edges."""
    height, width = heatmap.shape[1:]
    padded = F.pad(heatmap, (0, -width % SIDE, 0, -height % SIDE))
    return padded.unflatten(2, (-1, SIDE)).unflatten(1, (-1, SIDE)).transpose(2, 3).reshape(
        -1, SIDE * SIDE)


def _unblocked(blocks: Tensor, batch: int, height: int, width: int) -> Tensor:
    """``(B C H/4 W/4, 16) -> (B, C, H, W)``."""
    rows, columns = -(-height // SIDE), -(-width // SIDE)
    cells = blocks.view(batch, -1, rows, columns, SIDE, SIDE).transpose(3, 4)
    return cells.reshape(batch, -1, rows * SIDE, columns * SIDE)[..., :height, :width]


def _that_vary(blocks: Tensor, mean: Tensor, tolerance: float) -> Tensor:
    """Return the ascending numbers of the blocks to store cell by cell."""
    lost, order = (blocks - mean[:, None]).square().sum(1).sort()
    dropped = lost.cumsum(0) <= tolerance * blocks.square().sum()
    return order[~dropped].sort().values
