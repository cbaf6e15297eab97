"""The rarely used half of RoIAlign: the largest of a bin's points instead of their mean."""

from collections.abc import Iterator

import torch
from torch import Tensor

from mmkd.ops._roi_points import axis_points

__all__ = ['backward', 'forward']

OUTSIDE = -2  # a position from which nothing is read


def forward(input: Tensor, boxes: Tensor, ratio: int, output: Tensor, argmax_y: Tensor,
            argmax_x: Tensor) -> None:
    """Fill ``output`` with the maximum of each bin, and with where it is, box by box.

    Args:
        input: ``(B, C, H, W)``.
        boxes: ``(N, 5)``, as :func:`mmkd.ops._roi_points.boxes_in_cells` returns them.
        ratio: points along each axis of a bin, or 0 for as many as it has cells.
        output: ``(N, C, P, Q)``.
        argmax_y: as ``output``.
        argmax_x: as ``output``.
    """
    height, width = input.shape[2:]
    bins = output.shape[2:]
    for number, box in enumerate(boxes):
        place, left, top, box_width, box_height = box[:, None]
        axes = (axis_points(top, box_height, bins[0], height, ratio, leave_out=False),
                axis_points(left, box_width, bins[1], width, ratio, leave_out=False))
        y, x = (axis.positions.masked_fill(~axis.inside, OUTSIDE)[0] for axis in axes)
        values = 0
        for row, row_weight in _neighbours(y.flatten(), height):
            for column, column_weight in _neighbours(x.flatten(), width):
                weights = row_weight[:, None] * column_weight
                values = values + input[int(place)][:, row][:, :, column] * weights
        values = values.unflatten(2, x.shape).unflatten(1, y.shape)  # (C, P, S, Q, S)
        best, point = values.transpose(2, 3).flatten(-2).max(-1)
        output[number] = best
        rows, columns = (torch.arange(count, device=point.device) for count in bins)
        argmax_y[number] = y[rows[:, None], point // x.shape[1]]
        argmax_x[number] = x[columns, point % x.shape[1]]


def backward(grad_output: Tensor, places: Tensor, argmax_y: Tensor, argmax_x: Tensor,
             grad_input: Tensor) -> None:
    """Fill ``grad_input``: each bin's gradient goes to the cells around its largest point.

    Args:
        grad_output: ``(N, C, P, Q)``.
        places: ``(N,)`` int64, in the batch.
        argmax_y: as ``grad_output``.
        argmax_x: as ``grad_output``.
        grad_input: ``(B, C, H, W)``.
    """
    _, channels, height, width = grad_input.shape
    total = torch.zeros_like(grad_input, dtype=torch.promote_types(grad_input.dtype, torch.float32),
                             memory_format=torch.contiguous_format).flatten()
    planes = places[:, None] * channels + torch.arange(channels, device=places.device)
    for row, row_weight in _neighbours(argmax_y, height):
        for column, column_weight in _neighbours(argmax_x, width):
            cells = (planes[:, :, None, None] * height + row) * width + column
            shares = grad_output * row_weight * column_weight
            total.index_add_(0, cells.flatten(), shares.flatten().to(total.dtype))
    grad_input.copy_(total.view_as(grad_input))


def _neighbours(positions: Tensor, length: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield twice a cell beside each position, and its bilinear weight."""
    inside = (positions >= -1) & (positions <= length)
    positions = positions.clamp(0, length - 1)
    low = positions.floor().long()
    fraction = positions - low
    yield low, (1 - fraction) * inside
    yield (low + 1).clamp(max=length - 1), fraction  # 0 outside: those were moved to the border
