"""Where RoIAlign reads a map."""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ['Axis', 'axis_points', 'boxes_in_cells']


class Axis(NamedTuple):
    """The points of ``N`` boxes along one axis: ``S`` in each of ``P`` bins.

    Shapes: ``positions`` in cells from the centre of the first one, ``exists`` (a box may have
    fewer than ``S`` points) and ``inside`` the map are ``(N, P, S)``; ``count`` is ``(N, 1, 1)``.
    """

    positions: Tensor
    exists: Tensor
    inside: Tensor
    count: Tensor


def boxes_in_cells(rois: Tensor, dtype: torch.dtype, scale: float, aligned: bool) -> Tensor:
    """Return ``(N, 5)``: place in the batch, x and y of the first corner, width, height."""
    rois = rois.to(torch.promote_types(dtype, torch.float32))
    corners = rois[:, 1:] * scale - (0.5 if aligned else 0)
    # A box that is not a number lies outside the map.
    corners = torch.where(rois.isfinite().all(1, keepdim=True), corners, -2)
    sizes = corners[:, 2:] - corners[:, :2]
    if not aligned:
        sizes = sizes.clamp(min=1)
    return torch.cat((rois[:, :1], corners[:, :2], sizes), 1)


def axis_points(start: Tensor, size: Tensor, bins: int, length: int, ratio: int,
                leave_out: bool) -> Axis:
    """Lay out the points of ``N`` boxes along an axis of ``length`` cells.

    Args:
        start: ``(N,)``, where each box begins.
        size: ``(N,)``, of each box.
        bins: in each box.
        length: of the map.
        ratio: points in each bin, or 0 for as many as it has cells, rounded up.
        leave_out: whether points that cannot be inside may be missing. A box may be a thousand
            times as large as the map.
    """
    bin_size = (size / bins)[:, None, None]
    bin_start = start[:, None, None] + torch.arange(bins, device=size.device)[:, None] * bin_size
    count = torch.full_like(bin_size, ratio) if ratio > 0 else bin_size.ceil().clamp(min=0)
    spacing = bin_size / count.clamp(min=1)
    number, first = count, torch.zeros_like(bin_start)
    if leave_out and ratio == 0:
        # Points lie at bin_start + (step + 0.5) spacing; one more on each side, for the rounding.
        step = ((-1 - bin_start) / spacing - 0.5).floor() - 1
        first = torch.where(count > 0, step.clamp(min=0), 0)
        number = torch.where(count > 0, ((length + 1) / spacing).ceil() + 3, 0).minimum(count)
    steps = first + torch.arange(max(int(number.max()), 1), device=size.device)
    points = bin_start + (steps + 0.5) * spacing
    exists = steps < count
    inside = exists & (points >= -1) & (points <= length)
    return Axis(points, exists, inside, count)
