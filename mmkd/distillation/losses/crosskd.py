"""What the teacher's head says of the student's features, like what it says of its own."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmkd.distillation.losses._dense import (
    EPS,
    Assignment,
    Groups,
    aligned_iou,
    compared,
    distributions,
    divergences,
    soft_class_loss,
)
from mmkd.distillation.losses._errors import InputError

__all__ = ['CrossKDLoss']

BOXES = ('giou', 'iou', 'distribution')
DIVISORS = ('positive', 'centerness')


class CrossKDLoss(nn.Module):
    r"""The losses of CrossKD, on cross-head predictions that are made already.

    ``x`` is what the second half of the teacher's head makes of the student's features, ``t`` what
    it makes of the teacher's own; of prior ``i``: class logits ``z``, ``p = sigma(z)``, box ``b``,
    the student's label weight ``w_i``, and the divisor ``N`` of its head.

    ``L = a L_cls + b L_box + c L_ctr``

    * ``L_cls = 1/N sum_i w_i sum_c |p^x_ic - p^t_ic|^beta BCE(p^x_ic, p^t_ic)``;
    * ``L_box``, with the weights ``r_i = max_c p^t_ic`` where ``w_i > 0`` and 0 elsewhere:
      ``1/N sum_i r_i (1 - GIoU(b^x_i, b^t_i))`` (``'giou'``), ``1/N sum_i -r_i log IoU(b^x_i,
      b^t_i)`` (``'iou'``), or of a GFL ``1 / (4 sum_i r_i) sum_i r_i sum_e KL(t_ie || x_ie)``, the
      distributions of the four edges (``'distribution'``);
    * ``L_ctr = 1/N sum_{i positive} BCE(u^x_i, u^t_i)`` of the centerness ``u``.

    Smallest where ``x = t``: 0, but for ``L_ctr``, which then is an entropy.

    Source: J. Wang, Y. Chen, Z. Zheng, X. Li, M.-M. Cheng, Q. Hou, "CrossKD: Cross-Head Knowledge
    Distillation for Object Detection", CVPR 2024, arXiv 2306.11369; written from the formulas. Its
    settings, with ``beta = 1``; the last column counts the convolutions of the student's half:

    ==========  ====  ==================  ===  =====  ==========  ==
    student     a     box                 b    c      N           i
    ==========  ====  ==================  ===  =====  ==========  ==
    RetinaNet   1     giou                1    0      positive    3
    GFL         1     distribution        4    0      positive    3
    ATSS        1     giou                1    1      positive    3
    FCOS        0.4   iou                 .75  0      centerness  2
    ==========  ====  ==================  ===  =====  ==========  ==

    The number of positives is averaged over processes here for RetinaNet, too.

    Args:
        box: ``'giou'``, ``'iou'`` or ``'distribution'``.
        class_weight: ``a``; at 0 the part is left out, likewise below.
        box_weight: ``b``.
        centerness_weight: ``c``.
        beta: >= 1.
        per: what ``N`` counts: ``'positive'`` priors, or the sum of their ``'centerness'``.

    Raises:
        InputError: an argument is out of its range.
    """

    def __init__(self, box: str = 'giou', class_weight: float = 1.0, box_weight: float = 1.0,
                 centerness_weight: float = 0.0, beta: float = 1.0, per: str = 'positive') -> None:
        super().__init__()
        for name, value, allowed in (('box', box, BOXES), ('per', per, DIVISORS)):
            if value not in allowed:
                raise InputError(f'CrossKDLoss has {name}={value!r}: give one of '
                                 f'{", ".join(allowed)}')
        if beta < 1:
            raise InputError(f'CrossKDLoss has beta={beta}: give a number of at least 1')
        self.box, self.per, self.beta = box, per, beta
        self.class_weight, self.box_weight = class_weight, box_weight
        self.centerness_weight = centerness_weight

    def forward(self, student: Groups, teacher: Groups, assignment: Assignment,
                decode_teacher: Callable[[Sequence[Tensor]], Sequence[Tensor]]) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: the cross-head predictions: ``cls``, for each level ``(B, A C, H, W)`` logits,
                ``box`` and, if it is wanted, ``centerness``.
            teacher: the teacher's own; gets no gradient.
            assignment: the student's.
            decode_teacher: from maps of ``box`` to boxes ``(B, N_l, 4)`` of each level.

        Returns:
            a scalar.

        Raises:
            InputError: the maps do not fit each other or the options.
        """
        divisor = assignment.positives if self.per == 'positive' else assignment.centerness
        if divisor is None:
            raise InputError("CrossKDLoss has per='centerness', and the student's head does not "
                             "divide by that: leave it at 'positive'")
        classes = compared(student, teacher, 'cls', assignment, 'CrossKDLoss')
        total = classes[0][0].new_zeros(())
        if self.class_weight:
            parts = [(weight * soft_class_loss(*pair, self.beta)).sum()
                     for pair, weight in zip(classes, assignment.label_weights, strict=True)]
            total = total + self.class_weight * torch.stack(parts).sum() / divisor
        if self.box_weight:
            weights = [theirs.sigmoid().amax(-1) * (weight > 0)
                       for (_, theirs), weight in zip(classes, assignment.label_weights,
                                                      strict=True)]
            if self.box == 'distribution':
                found = _edges(compared(student, teacher, 'box', assignment, 'CrossKDLoss'),
                               weights)
            else:
                found = self._overlaps(decode_teacher(student['box']),
                                       decode_teacher(teacher['box']), weights) / divisor
            total = total + self.box_weight * found
        if self.centerness_weight:
            total = total + self.centerness_weight * _centerness(student, teacher, assignment
                                                                 ) / divisor
        return total

    def _overlaps(self, student: Sequence[Tensor], teacher: Sequence[Tensor],
                  weights: Sequence[Tensor]) -> Tensor:
        parts = []
        for ours, theirs, weight in zip(student, teacher, weights, strict=True):
            iou, giou = aligned_iou(ours, theirs.detach())
            losses = 1 - giou if self.box == 'giou' else -iou.clamp(min=EPS).log()
            parts.append((weight * losses).sum())
        return torch.stack(parts).sum()


def _edges(boxes: Sequence[tuple[Tensor, Tensor]], weights: Sequence[Tensor]) -> Tensor:
    parts = [(weight * divergences(*(distributions(side, 'CrossKDLoss') for side in pair), 1.0
                                   ).sum((-1, -2))).sum()
             for pair, weight in zip(boxes, weights, strict=True)]
    return torch.stack(parts).sum() / (4 * torch.stack([w.sum() for w in weights]).sum()
                                       ).clamp(min=EPS)


def _centerness(student: Groups, teacher: Groups, assignment: Assignment) -> Tensor:
    pairs = compared(student, teacher, 'centerness', assignment, 'CrossKDLoss')
    parts = [F.binary_cross_entropy_with_logits(
        ours[where], theirs[where].sigmoid(), reduction='sum')
        for (ours, theirs), where in zip(pairs, assignment.is_positive(), strict=True)]
    return torch.stack(parts).sum()
