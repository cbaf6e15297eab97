"""RoIAlign in plain PyTorch: stands in for ``mmcv._ext.roi_align_forward`` and ``_backward``.

A box is divided into ``P x Q`` bins, and the map is read bilinearly at ``S x S`` points of each.
Averaged over a bin, that is a weighted sum of the cells around it, and as the points lie on a
grid, a cell's weight is one of its row times one of its column. So no point is ever computed:
the rows and columns of each bin are listed with their weights, and one gather sums the cells.
It costs what the boxes cover, whatever the size of the map.

Source: K. He, G. Gkioxari, P. Dollár, R. Girshick, "Mask R-CNN", ICCV 2017, arXiv 1703.06870.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkd.ops import roi_max
from mmkd.ops._roi_points import axis_points, boxes_in_cells

__all__ = ['roi_align_backward', 'roi_align_forward']

# Cells that are listed at once, which bounds the memory: 8 bytes for a place, 4 for a weight.
CELLS = 2 ** 22


def roi_align_forward(input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor,
                      argmax_x: Tensor, aligned_height: int, aligned_width: int,
                      spatial_scale: float, sampling_ratio: int, pool_mode: int,
                      aligned: bool) -> None:
    """Fill ``output`` with the mean (or the maximum) of each bin of each box.

    Args:
        input: ``(B, C, H, W)``.
        rois: ``(N, 5)``: the place in the batch, and ``x1, y1, x2, y2`` in pixels of the image.
        output: ``(N, C, aligned_height, aligned_width)``.
        argmax_y: as ``output`` where ``pool_mode`` is 0: filled with the row of the maximum.
        argmax_x: the same for its column.
        aligned_height: bins from top to bottom.
        aligned_width: bins from left to right.
        spatial_scale: cells of ``input`` per pixel.
        sampling_ratio: points along each axis of a bin, or 0 for its size in cells, rounded up.
        pool_mode: 0 for the maximum of the points, 1 for their mean.
        aligned: whether pixels are counted from their edge, as they should be; else from their
            centre, and a box is at least one cell large.

    Points more than a cell outside the map count as 0; nearer ones are moved to its border.
    """
    grid = (aligned_height, aligned_width)
    boxes = boxes_in_cells(rois, input.dtype, spatial_scale, aligned)
    if pool_mode == 0:
        roi_max.forward(input, boxes, sampling_ratio, output, argmax_y, argmax_x)
        return
    table = input.permute(0, 2, 3, 1).flatten(0, 2)
    for chosen, bags in _bags(boxes, grid, input.shape, sampling_ratio):
        sums = _sum_up(table, bags)
        output[chosen] = sums.view(len(chosen), *grid, -1).permute(0, 3, 1, 2)


def roi_align_backward(grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor,
                       grad_input: Tensor, aligned_height: int, aligned_width: int,
                       spatial_scale: float, sampling_ratio: int, pool_mode: int,
                       aligned: bool) -> None:
    """Fill ``grad_input``, ``(B, C, H, W)``; the arguments are those of the forward operator."""
    if pool_mode == 0:
        roi_max.backward(grad_output, rois[:, 0].long(), argmax_y, argmax_x, grad_input)
        return
    grid = (aligned_height, aligned_width)
    boxes = boxes_in_cells(rois, grad_input.dtype, spatial_scale, aligned)
    batch, channels, height, width = grad_input.shape
    # The mean is linear in the map: its gradient is the same at any map. Boxes that share a cell
    # may be hundreds, so half precision does not do for their sum.
    table = boxes.new_zeros(batch * height * width, channels)
    total = torch.zeros_like(table)
    for chosen, bags in _bags(boxes, grid, grad_input.shape, sampling_ratio):
        with torch.enable_grad():
            sums = _sum_up(table.requires_grad_(), bags)
        rows = grad_output[chosen].permute(0, 2, 3, 1).reshape_as(sums).to(table.dtype)
        total += torch.autograd.grad(sums, table, rows)[0]
    grad_input.copy_(total.view(batch, height, width, channels).permute(0, 3, 1, 2))


def _lines(start: Tensor, size: Tensor, bins: int, length: int,
           ratio: int) -> tuple[Tensor, Tensor]:
    """Return which rows (or columns) each bin reads, and their weights: ``(N, P, K)`` each.

    The arguments are those of :func:`mmkd.ops._roi_points.axis_points`.
    """
    axis = axis_points(start, size, bins, length, ratio, leave_out=True)
    positions = axis.positions.clamp(0, length - 1)
    # At least the first point, so that a box without any has a beginning and an end.
    exists = axis.exists | (torch.arange(positions.shape[-1], device=positions.device) == 0)
    first = positions.masked_fill(~exists, length).amin(-1).floor().long()
    last = positions.masked_fill(~exists, 0).amax(-1).ceil().long()
    lines = first[..., None] + torch.arange(int((last - first).max()) + 1, device=first.device)
    hats = (1 - (positions[..., None, :] - lines[..., None]).abs()).clamp(min=0)
    weights = (hats * axis.inside[..., None, :]).sum(-1) / axis.count.clamp(min=1)
    return lines.clamp(max=length - 1), weights


class _Bags(NamedTuple):
    """For each of ``M`` bins the cells it sums up, one bin after the other."""

    cells: Tensor  # numbers of rows of the table
    weights: Tensor
    starts: Tensor  # (M,), where each bin's cells begin


def _sum_up(table: Tensor, bags: _Bags) -> Tensor:
    """Return ``(M, C)`` for a table ``(B * H * W, C)`` of cells."""
    return F.embedding_bag(bags.cells, table, bags.starts, mode='sum',
                           per_sample_weights=bags.weights.to(table.dtype))


def _bags(boxes: Tensor, grid: tuple[int, int], shape: torch.Size,
          ratio: int) -> Iterator[tuple[Tensor, _Bags]]:
    """Yield the indices of some boxes, and the bags of their bins, until all boxes were seen."""
    height, width = shape[2:]
    for chosen in _groups(boxes, grid, (height, width)):
        place, x, y, box_width, box_height = boxes[chosen].unbind(1)
        rows, row_weights = _lines(y, box_height, grid[0], height, ratio)
        columns, column_weights = _lines(x, box_width, grid[1], width, ratio)
        rows = rows + place.long()[:, None, None] * height
        cells = rows[:, :, None, :, None] * width + columns[:, None, :, None, :]
        weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
        used = weights != 0
        ends = used.sum((-2, -1)).flatten().cumsum(0)
        yield chosen, _Bags(cells[used], weights[used], F.pad(ends[:-1], (1, 0)))


def _groups(boxes: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Iterator[Tensor]:
    """Yield indices of boxes that list about ``CELLS`` cells when each reads as many as any."""
    spans = [(boxes[:, axis].abs() / bins).ceil().clamp(max=length) + 2
             for axis, bins, length in ((4, grid[0], size[0]), (3, grid[1], size[1]))]
    order = torch.argsort(spans[0] * spans[1])  # so that boxes of a size are together
    spans = torch.stack(spans, 1)[order].cpu()
    todo = [(0, len(order))] if len(order) else []
    while todo:
        start, end = todo.pop()
        rows, columns = spans[start:end].amax(0).tolist()
        # Along an axis, each point of a bin is compared with each of its cells.
        cells = max(grid[0] * rows * grid[1] * columns, grid[0] * rows ** 2, grid[1] * columns ** 2)
        if cells * (end - start) > CELLS and end - start > 1:
            middle = (start + end) // 2
            todo += [(middle, end), (start, middle)]
        else:
            yield order[start:end]
