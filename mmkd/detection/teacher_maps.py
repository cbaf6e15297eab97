"""A teacher's CenterNet maps in the student's terms: its classes, its stride."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkd.errors import UserError

__all__ = ['Maps', 'class_index', 'resampled']

class Maps(NamedTuple):
    """What a CenterNet head gives for a batch, at one stride."""

    heatmap: Tensor
    """``(B, C, H, W)``, probability that the centre of an object of a class lies in a cell."""
    wh: Tensor
    """``(B, 2, H, W)``, width and height of that object in cells."""
    offset: Tensor
    """``(B, 2, H, W)``, x and y of the centre within the cell, in cells."""


def class_index(student: Sequence[str], teacher: Sequence[str] | None, name: str
                ) -> list[int] | None:
    """Where the student's classes are among the teacher's heatmap channels.

    Returns:
        an index per student class, or None where both have the same classes in the same order
        or the teacher's are unknown.

    Raises:
        UserError: the teacher lacks a class of the student; lists both.
    """
    if teacher is None or tuple(student) == tuple(teacher):
        return None
    if not set(student) <= set(teacher):
        raise UserError(f"teacher '{name}' does not know every class of the student: the student "
                        f'has {list(student)}, the teacher {list(teacher)}; train the teacher on '
                        "the student's classes")
    return [list(teacher).index(label) for label in student]

def resampled(maps: Maps, size: tuple[int, int]) -> Maps:
    """Bring maps to another stride of the same input.

    With ``r = stride_teacher / stride_student`` and the teacher's cell ``x_t`` that holds the
    student's cell ``x``: heatmaps are interpolated bilinearly, or, if the teacher's grid is
    finer, reduced to the highest peak; ``wh = r * wh_t(x_t)``; the offset keeps the absolute
    centre, ``o = r * (x_t + o_t(x_t)) - x``.

    Args:
        maps: a teacher's.
        size: ``(H, W)`` of the student's maps.
    """
    old = maps.heatmap.shape[-2:]
    if tuple(old) == tuple(size):
        return maps
    if old[0] > size[0]:
        heatmap = F.adaptive_max_pool2d(maps.heatmap, size)
    else:
        heatmap = F.interpolate(maps.heatmap, size, mode='bilinear', align_corners=False)
    # As (x, y), like the channels of wh and offset.
    ratio = maps.wh.new_tensor([size[1] / old[1], size[0] / old[0]]).view(1, 2, 1, 1)
    centre = (maps.offset + _cells(maps.offset)) * ratio
    wh = F.interpolate(maps.wh * ratio, size, mode='nearest-exact')
    centre = F.interpolate(centre, size, mode='nearest-exact')
    return Maps(heatmap, wh, centre - _cells(centre))

def _cells(like: Tensor) -> Tensor:
    """``(1, 2, H, W)``: x and y of every cell."""
    height, width = like.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height, device=like.device, dtype=like.dtype),
                          torch.arange(width, device=like.device, dtype=like.dtype), indexing='ij')
    return torch.stack((x, y))[None]
