"""What the losses between sets of predictions (DETRs) share."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkd.distillation.losses._dense import Groups, aligned_iou
from mmkd.distillation.losses._errors import InputError
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['check_classes', 'class_costs', 'class_divergence', 'corners', 'foreground', 'giou',
           'paired_layers', 'predictions']

EPS = 1e-9
"""The smallest area that is divided by: the sides of a box are fractions of its image's."""


def paired_layers(student: int, teacher: int) -> list[int]:
    """Return for each of the student's layers the number of the teacher's that it meets.

    The last meets the last, the others at the same share of the way: layer ``l`` of ``S`` meets
    ``ceil((l + 1) T / S) - 1`` of ``T``, counted from 0.
    """
    return [-(-(layer + 1) * teacher // student) - 1 for layer in range(student)]


def predictions(side: Groups, loss: str, who: str) -> tuple[list[Tensor], list[Tensor]]:
    """Return class logits and boxes, layer by layer, in float32 at least.

    Raises:
        InputError: a group is missing, or classes and boxes are not as many.
    """
    try:
        classes, boxes = side['cls'], side['box']
    except KeyError as error:
        raise InputError(f'{loss} needs the groups cls and box of both sides, and {who} has '
                         f"{sorted(side)}: give its term type='DETRTerm'") from error
    if [one.shape[:-1] for one in classes] != [one.shape[:-1] for one in boxes]:
        raise InputError(f'{loss}: classes {[tuple(one.shape) for one in classes]} and boxes '
                         f'{[tuple(one.shape) for one in boxes]} of {who} do not go together')
    return [at_least_float32(one) for one in classes], [at_least_float32(one) for one in boxes]


def check_classes(student: Sequence[Tensor], teacher: Sequence[Tensor], loss: str) -> None:
    """Check that both sides speak of the same classes.

    Raises:
        InputError: they do not.
    """
    counts = {one.shape[-1] for one in (*student, *teacher)}
    if len(counts) > 1:
        raise InputError(f'{loss} compares class by class, and student and teacher have '
                         f'{student[0].shape[-1]} and {teacher[0].shape[-1]} outputs for a query: '
                         'give both the same classes')


def foreground(logits: Tensor, has_background: bool) -> Tensor:
    """Return the probability of each class of objects: the last one of a softmax is none."""
    return logits.softmax(-1)[..., :-1] if has_background else logits.sigmoid()


def class_divergence(student: Tensor, teacher: Tensor, softmax: bool) -> Tensor:
    """Return ``KL(t || s)`` of logits ``(..., C)``: of a softmax, or summed over binary classes.

    Both are ``A(z_s) - A(z_t) - p_t (z_s - z_t)`` with the log-partition ``A``.
    """
    target, own = _mean(teacher, softmax), _partition(teacher, softmax)
    return _partition(student, softmax) - own - (target * (student - teacher)).sum(-1)


def class_costs(student: Tensor, teacher: Tensor, softmax: bool) -> Tensor:
    """Return ``KL(t_j || s_i)`` of every pair of ``(B, N, C)`` and ``(B, M, C)``: ``(B, N, M)``."""
    target = _mean(teacher, softmax)
    own = (target * teacher).sum(-1) - _partition(teacher, softmax)
    return (_partition(student, softmax)[:, :, None] + own[:, None]
            - student @ target.transpose(1, 2))


def _mean(logits: Tensor, softmax: bool) -> Tensor:
    return logits.softmax(-1) if softmax else logits.sigmoid()


def _partition(logits: Tensor, softmax: bool) -> Tensor:
    return logits.logsumexp(-1) if softmax else F.softplus(logits).sum(-1)


def corners(boxes: Tensor) -> Tensor:
    """Return boxes ``(..., 4)`` given as centre, width, height as x1, y1, x2, y2."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat((centre - half, centre + half), -1)


def giou(first: Tensor, second: Tensor) -> Tensor:
    """Return the GIoU of boxes with those at the same place, as centre, width, height."""
    return aligned_iou(corners(first), corners(second), EPS)[1]
