"""Non-maximum suppression in plain PyTorch: stands in for ``mmcv._ext.nms``."""

import torch
from torch import Tensor

__all__ = ['nms']

# Boxes that are looked at together. More of them are fewer steps, each on a larger matrix.
BLOCK = 256


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Keep the best boxes, dropping those that overlap a better one that is kept.

    The best boxes left are taken a block at a time: it is settled which of them are kept, and
    what these overlap is dropped from the rest. A block is thus compared only with boxes that
    are still left, and the result is that of taking the boxes one by one.

    Args:
        boxes: ``(N, 4)`` float, ``(x1, y1, x2, y2)`` in pixels.
        scores: ``(N,)`` float.
        iou_threshold: a box is dropped if its intersection over union with a kept box is larger.
        offset: 0, or 1 where a box of width ``w`` has ``x2 = x1 + w - 1``.

    Returns:
        ``(K,)`` int64 indices of the kept boxes, best score first.
    """
    if boxes.dtype in (torch.float16, torch.bfloat16):  # an area may be beyond the range
        boxes = boxes.float()
    order = scores.argsort(descending=True, stable=True)
    left = boxes[order].T.contiguous()  # each coordinate in one piece of memory
    kept = [order[:0]]
    while len(order):
        block, rest = left[:, :BLOCK], left[:, BLOCK:]
        winners = _undominated(_overlap_more(block, block, iou_threshold, offset).triu(1))
        kept.append(order[:BLOCK][winners])
        alive = ~_overlap_more(block[:, winners], rest, iou_threshold, offset).any(0)
        order, left = order[BLOCK:][alive], rest[:, alive]
    return torch.cat(kept)


def _overlap_more(first: Tensor, second: Tensor, threshold: float, offset: int) -> Tensor:
    """Return ``(N, M)`` bool: whether an intersection over union is above ``threshold``.

    Args:
        first: ``(4, N)``.
        second: ``(4, M)``.
        threshold: see above.
        offset: as of :func:`nms`.
    """
    x1, y1, x2, y2 = first[:, :, None]
    left, top, right, bottom = second
    width = torch.minimum(x2, right).sub_(torch.maximum(x1, left)).add_(offset).clamp_(min=0)
    height = torch.minimum(y2, bottom).sub_(torch.maximum(y1, top)).add_(offset).clamp_(min=0)
    overlap = width.mul_(height)
    areas = (x2 - x1 + offset) * (y2 - y1 + offset)
    others = (right - left + offset) * (bottom - top + offset)
    # Compared as a product, so that two boxes of no area need no guard against 0 / 0.
    return overlap > (areas + others).sub_(overlap).mul_(threshold)


def _undominated(drops: Tensor) -> Tensor:
    """Return ``(N,)`` bool: kept is who is dropped by none that is kept.

    Args:
        drops: ``(N, N)`` bool, strictly upper triangular: ``drops[i, j]`` if ``i``, once kept,
            drops ``j``.
    """
    # The first box is right from the start, and each round settles at least one box more: what a
    # round leaves as it was is the one solution.
    kept = ~drops.any(0)
    while True:
        found = ~(drops & kept[:, None]).any(0)
        if torch.equal(found, kept):
            return kept
        kept = found
