"""Class scores as binary tasks, boxes by their overlap, both most where student and teacher differ.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mmkd.distillation.losses._dense import (
    Assignment,
    Groups,
    aligned_iou,
    compared,
    soft_class_loss,
)
from mmkd.distillation.losses._errors import InputError

__all__ = ['BCKDLoss']

Decode = Callable[[Sequence[Tensor]], Sequence[Tensor]]
"""From the maps of ``box`` to the boxes of each level, ``(B, N_l, 4)`` in pixels."""


class BCKDLoss(nn.Module):
    r"""Binary classification distillation and IoU-based localisation distillation.

    ``L = a L_cls + b L_loc``, with the probabilities ``p = sigma(z)`` of prior ``i`` and class
    ``c``, the student's label weights ``w`` and its number ``N`` of positives:

    * ``L_cls = 1/N sum_i w_i sum_c |p^t_ic - p^s_ic|^beta BCE(p^s_ic, p^t_ic)``;
    * ``L_loc = 1/N sum_i w_i max_c |p^t_ic - p^s_ic| (1 - GIoU(b^s_i, b^t_i))`` with the decoded
      boxes ``b``; the weight gets no gradient.

    0 where student and teacher are equal.

    Source: L. Yang, X. Zhou, X. Li, L. Qiao, Z. Li, Z. Yang, G. Wang, X. Li, "Bridging Cross-task
    Protocol Inconsistency for Distillation in Dense Object Detection", ICCV 2023, arXiv 2308.14286,
    for GFL on COCO: ``a = 1``, ``beta = 1``, ``b = 4``. Its code leaves out the levels on which no
    prior of the process's batch is positive; here every level counts, as in the formulas, unless
    ``every_level`` is False.

    Args:
        class_weight: ``a``; at 0 the part is left out, likewise below.
        box_weight: ``b``.
        beta: >= 1.
        every_level: whether levels without positives count.

    Raises:
        InputError: ``beta`` is below 1: the slope would be infinite where both agree.
    """

    def __init__(self, class_weight: float = 1.0, box_weight: float = 4.0, beta: float = 1.0,
                 every_level: bool = True) -> None:
        super().__init__()
        if beta < 1:
            raise InputError(f'BCKDLoss has beta={beta}: give a number of at least 1')
        self.class_weight, self.box_weight = class_weight, box_weight
        self.beta, self.every_level = beta, every_level

    def forward(self, student: Groups, teacher: Groups, assignment: Assignment,
                decode_student: Decode, decode_teacher: Decode) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: ``cls``, for each level ``(B, A C, H, W)`` logits, and ``box``, as the head
                gives them.
            teacher: the same, of a head that may code its boxes otherwise; gets no gradient.
            assignment: the student's.
            decode_student: from the student's ``box`` to boxes.
            decode_teacher: from the teacher's.

        Returns:
            a scalar.

        Raises:
            InputError: the maps do not fit each other.
        """
        classes = compared(student, teacher, 'cls', assignment, 'BCKDLoss')
        weights = assignment.label_weights
        if not self.every_level:
            weights = [weight * where.any() for weight, where in
                       zip(weights, assignment.is_positive(), strict=True)]
        total = classes[0][0].new_zeros(())
        if self.class_weight:
            parts = [(weight * soft_class_loss(*pair, self.beta)).sum()
                     for pair, weight in zip(classes, weights, strict=True)]
            total = total + self.class_weight * torch.stack(parts).sum()
        if self.box_weight:
            total = total + self.box_weight * _box_loss(
                classes, weights, decode_student(student['box']), decode_teacher(teacher['box']))
        return total / assignment.positives


def _box_loss(classes: Sequence[tuple[Tensor, Tensor]], weights: Sequence[Tensor],
              student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    if [b.shape for b in student] != [b.shape for b in teacher]:
        raise InputError(f'BCKDLoss compares boxes prior by prior, and the student has '
                         f'{[tuple(b.shape) for b in student]}, the teacher '
                         f'{[tuple(b.shape) for b in teacher]}: the two heads must have the same '
                         'levels and anchors')
    parts = []
    for (ours, theirs), weight, own, other in zip(classes, weights, student, teacher, strict=True):
        apart = (theirs.sigmoid() - ours.detach().sigmoid()).abs().amax(-1)
        parts.append((weight * apart * (1 - aligned_iou(own, other.detach())[1])).sum())
    return torch.stack(parts).sum()
