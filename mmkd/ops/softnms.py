"""Soft non-maximum suppression in plain PyTorch: stands in for ``mmcv._ext.softnms``."""

import torch
from torch import Tensor

__all__ = ['softnms']

NAIVE, LINEAR, GAUSSIAN = range(3)


def softnms(boxes: Tensor, scores: Tensor, dets: Tensor, iou_threshold: float, sigma: float,
            min_score: float, method: int, offset: int) -> Tensor:
    """Take the best box again and again, lowering the scores of those that overlap it.

    A score is multiplied by ``f(iou)`` with the box just taken:

    * naive (0): 0 if ``iou >= iou_threshold``;
    * linear (1): ``1 - iou`` if ``iou >= iou_threshold``;
    * Gaussian (2): ``exp(-iou^2 / sigma)``.

    A box whose score is then below ``min_score`` is dropped. Of equal scores, the first box goes
    first.

    Args:
        boxes: ``(N, 4)`` float, ``(x1, y1, x2, y2)`` in pixels.
        scores: ``(N,)`` float.
        dets: ``(N, 5)``, filled in its first ``K`` rows with the boxes taken and their scores at
            that moment.
        iou_threshold: see above.
        sigma: see above.
        min_score: see above.
        method: see above.
        offset: 0, or 1 where a box of width ``w`` has ``x2 = x1 + w - 1``.

    Returns:
        ``(K,)`` int64 indices of the boxes taken, in this order.

    Source: N. Bodla, B. Singh, R. Chellappa, L. S. Davis, "Soft-NMS: Improving Object Detection
    With One Line of Code", ICCV 2017, arXiv 1704.04503.
    """
    scores = scores.clone()
    left = torch.arange(len(scores), device=scores.device)
    taken = []
    while len(left):
        place = int(scores[left].argmax())
        best = left[place]
        dets[len(taken), :4], dets[len(taken), 4] = boxes[best], scores[best]
        taken.append(best)
        left = torch.cat((left[:place], left[place + 1:]))
        iou = _iou(boxes[best], boxes[left], offset)
        if method == GAUSSIAN:
            factor = torch.exp(-iou * iou / sigma)
        else:
            lowered = 1 - iou if method == LINEAR else torch.zeros_like(iou)
            factor = torch.where(iou >= iou_threshold, lowered, torch.ones_like(iou))
        scores[left] *= factor
        left = left[scores[left] >= min_score]
    return torch.stack(taken) if taken else left


def _iou(box: Tensor, boxes: Tensor, offset: int) -> Tensor:
    """Return as ``(N,)`` the intersection over union of one box with each of ``boxes``."""
    sides = torch.minimum(box[2:], boxes[:, 2:]) - torch.maximum(box[:2], boxes[:, :2]) + offset
    overlap = sides.clamp(min=0).prod(1)
    area = (box[2:] - box[:2] + offset).prod()
    union = area + (boxes[:, 2:] - boxes[:, :2] + offset).prod(1) - overlap
    return torch.where(overlap > 0, overlap / union, torch.zeros_like(union))  # never 0 / 0
