"""What the losses on class scores share."""

import torch.nn.functional as F
from torch import Tensor

from mmkd.distillation.losses._errors import InputError
from mmkd.distillation.losses._precision import at_least_float32


def scaled_logits(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return ``(z^s / T, z^t / T)`` in float32 at least, the teacher's without gradient.

    Args:
        student: ``(B, C)`` logits.
        teacher: the same shape.
        temperature: ``T`` > 0.

    Raises:
        InputError: the shapes differ or are not ``(B, C)``.
    """
    if student.shape != teacher.shape or student.dim() != 2:
        raise InputError(f'student logits of shape {tuple(student.shape)} cannot be compared with '
                         f'teacher logits of shape {tuple(teacher.shape)}: both must be (batch, '
                         'classes), with the same classes')
    return (at_least_float32(student) / temperature,
            at_least_float32(teacher.detach()) / temperature)


def kl_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Batch mean of ``KL(softmax(teacher) || softmax(student))``, of logits ``(B, C)``."""
    return F.kl_div(F.log_softmax(student, dim=1), F.log_softmax(teacher, dim=1),
                    reduction='batchmean', log_target=True)
