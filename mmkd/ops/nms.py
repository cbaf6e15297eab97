"""Greedy non-maximum suppression in plain PyTorch, with the signature of ``mmcv._ext.nms``."""

import torch
from torch import Tensor

__all__ = ['nms']


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Keep the best boxes, dropping those that overlap a better one.

    Args:
        boxes: ``(N, 4)`` float, ``(x1, y1, x2, y2)`` in pixels.
        scores: ``(N,)`` float.
        iou_threshold: a box is dropped if its intersection over union with a kept box is larger.
        offset: 0, or 1 where a box of width ``w`` has ``x2 = x1 + w - 1``.

    Returns:
        ``(K,)`` int64 indices of the kept boxes, best score first.
    """
    order = scores.argsort(descending=True, stable=True)
    x1, y1, x2, y2 = boxes[order].unbind(1)
    areas = (x2 - x1 + offset) * (y2 - y1 + offset)
    alive = torch.ones_like(order, dtype=torch.bool)
    for i in range(len(order)):
        if not alive[i]:
            continue
        rest = slice(i + 1, None)
        width = (torch.minimum(x2[i], x2[rest]) - torch.maximum(x1[i], x1[rest]) + offset)
        height = (torch.minimum(y2[i], y2[rest]) - torch.maximum(y1[i], y1[rest]) + offset)
        overlap = width.clamp(min=0) * height.clamp(min=0)
        # Compared as a product, so that two boxes of no area need no guard against 0 / 0.
        alive[rest] &= overlap <= iou_threshold * (areas[i] + areas[rest] - overlap)
    return order[alive]
