"""What the losses on the outputs of dense heads share."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkd.distillation.losses._errors import InputError
from mmkd.distillation.losses._precision import at_least_float32

Groups = Mapping[str, Sequence[Tensor]]
"""The maps of a head, level by level: ``cls``, ``box`` and, of some, ``centerness``."""
EPS = 1e-6


class Priors(NamedTuple):
    """Where a head's predictions start from."""

    boxes: list[Tensor]
    """For each level ``(N_l, 4)`` anchors or ``(N_l, 2)`` points, in pixels of the input."""
    strides: list[int]
    """For each level."""


class Assignment(NamedTuple):
    """What the student is to predict at each of its priors, in this batch."""

    labels: list[Tensor]
    """For each level ``(B, N_l)`` int64; :attr:`background` where there is no object."""
    label_weights: list[Tensor]
    """For each level ``(B, N_l)``; 0 where a prior is ignored."""
    box_targets: list[Tensor]
    """For each level ``(B, N_l, 4)``, in the form in which the head learns them."""
    background: int
    """The number of classes."""
    positives: Tensor
    """The number of priors with an object as the head counts them, averaged over processes; a
    scalar of at least 1."""
    centerness: Tensor | None = None
    """The sum of the targets of the centerness, averaged over processes; of heads that divide by it
    (FCOS), else None."""

    def is_positive(self) -> list[Tensor]:
        """Return for each level ``(B, N_l)``, whether there is an object."""
        return [(labels >= 0) & (labels < self.background) for labels in self.labels]


def compared(student: Groups, teacher: Groups, group: str, assignment: Assignment, loss: str
             ) -> list[tuple[Tensor, Tensor]]:
    """Return for each level what both sides say of each prior, ``(B, N_l, K)`` in float32 at least.

    The order is that of MMDetection: by row, then column, then anchor. The teacher's is detached.

    Raises:
        InputError: a side lacks the group, or levels, sizes or channels differ.
    """
    try:
        ours, theirs = student[group], teacher[group]
    except KeyError as error:
        raise InputError(f"{loss} needs the group '{group}' of both sides, and they have "
                         f'{sorted(student)} and {sorted(teacher)}: add it to `tap` and '
                         '`teacher_tap`') from error
    shapes = [[tuple(one.shape) for one in side] for side in (ours, theirs)]
    counts = [labels.shape[1] for labels in assignment.labels]
    fits = len(ours) == len(counts) and all(
        len(shape) == 4 and shape[1] * shape[2] * shape[3] % count == 0
        for shape, count in zip(shapes[0], counts, strict=False))
    if shapes[0] != shapes[1] or not fits:
        raise InputError(f"{loss} compares '{group}' prior by prior, and the student's maps "
                         f"{shapes[0]}, the teacher's {shapes[1]} and the {counts} priors of each "
                         "level do not go together: the two heads must have the same levels, "
                         'anchors and classes')
    return [(rows(s, count), rows(t.detach(), count))
            for s, t, count in zip(ours, theirs, counts, strict=True)]


def rows(feature: Tensor, count: int) -> Tensor:
    """Return a map ``(B, A K, H, W)`` as ``(B, count, K)``, ``count = H W A``."""
    feature = at_least_float32(feature)
    return feature.permute(0, 2, 3, 1).reshape(len(feature), count, -1)


def distributions(box: Tensor, loss: str) -> Tensor:
    """Return ``(..., 4 (n + 1))`` as ``(..., 4, n + 1)``, the logits of one edge's places.

    Raises:
        InputError: there is a single number for an edge.
    """
    if box.shape[-1] % 4 or box.shape[-1] < 8:
        raise InputError(f'{loss} compares distributions over places of the edges of boxes, and '
                         f'the head gives {box.shape[-1]} numbers for a box: take a GFL')
    return box.unflatten(-1, (4, -1))


def divergences(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return ``T^2 p_t (log p_t - log p_s)`` for each class or bin, ``p = softmax(z / T)``."""
    ours, theirs = (F.log_softmax(at_least_float32(z) / temperature, -1)
                    for z in (student, teacher))
    return temperature ** 2 * F.kl_div(ours, theirs, reduction='none', log_target=True)


def soft_class_loss(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    """Return ``sum_c |p_t - p_s|^beta BCE(z_s, p_t)`` for logits ``(..., C)``."""
    target = teacher.sigmoid()
    factor = (target - student.sigmoid()).abs().pow(beta)
    losses = F.binary_cross_entropy_with_logits(student, target, reduction='none')
    return (losses * factor).sum(-1)


def aligned_iou(first: Tensor, second: Tensor, eps: float = EPS) -> tuple[Tensor, Tensor]:
    """Return IoU and GIoU of boxes ``(..., 4)`` with those at the same place.

    Args:
        first: x1, y1, x2, y2.
        second: likewise.
        eps: the smallest area that is divided by; of boxes in pixels by default.
    """
    overlap = _area(torch.maximum(first[..., :2], second[..., :2]),
                    torch.minimum(first[..., 2:], second[..., 2:]))
    union = (_area(first[..., :2], first[..., 2:]) + _area(second[..., :2], second[..., 2:])
             - overlap).clamp(min=eps)
    hull = _area(torch.minimum(first[..., :2], second[..., :2]),
                 torch.maximum(first[..., 2:], second[..., 2:])).clamp(min=eps)
    iou = overlap / union
    return iou, iou - (hull - union) / hull


def _area(lower: Tensor, upper: Tensor) -> Tensor:
    return (upper - lower).clamp(min=0).prod(-1)
