"""Knowledge distillation, decoupled into target and non-target classes."""

import torch
from torch import Tensor, nn

from mmkd.distillation.losses._errors import InputError, check_temperature
from mmkd.distillation.losses._logits import kl_divergence, scaled_logits

__all__ = ['DKDLoss']


class DKDLoss(nn.Module):
    r"""Weighted sum of the divergences on the target class and among the others.

    ``L = T^2 / B * sum_b [alpha TCKD_b + beta NCKD_b]`` with, ``y`` being the label,

    * ``TCKD = KL(b^t || b^s)``, ``b = (p_y, 1 - p_y)``, ``p = softmax(z / T)``,
    * ``NCKD = KL(q^t || q^s)``, ``q = softmax`` of ``z / T`` over the classes other than ``y``.

    KD is the case ``alpha = 1``, ``beta = 1 - p^t_y``. The 20 epochs of warm-up of the published
    runs are the term's, not the loss's.

    Source: B. Zhao, Q. Cui, R. Song, Y. Qiu, J. Liang, "Decoupled Knowledge Distillation", CVPR
    2022, arXiv 2203.08679. Its code leaves the target out of ``q`` by lowering its logit by 1000,
    and takes the log of rounded probabilities; here both are exact at any logits.

    Args:
        alpha: weight of TCKD.
        beta: weight of NCKD; 8 in the paper, less for some pairs.
        temperature: ``T`` > 0.

    Raises:
        InputError: the temperature is not above 0.
    """

    def __init__(self, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0) -> None:
        super().__init__()
        check_temperature(temperature, 'DKDLoss')
        self.alpha = alpha
        self.beta = beta
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: ``(B, C)`` logits, C >= 2.
            teacher: the same shape; gets no gradient.
            labels: ``(B,)`` int64, in ``[0, C)``.

        Returns:
            a scalar.

        Raises:
            InputError: the logits' shapes differ or are not ``(B, C)``, or labels are not
                ``(B,)``.
        """
        student, teacher = scaled_logits(student, teacher, self.temperature)
        if labels.shape != student.shape[:1]:
            raise InputError(f'labels of shape {tuple(labels.shape)} do not belong to logits of '
                             f'shape {tuple(student.shape)}: DKD needs one class per sample, so '
                             'mix no labels')
        student_target, student_others = _decouple(student, labels)
        teacher_target, teacher_others = _decouple(teacher, labels)
        tckd = kl_divergence(student_target, teacher_target)
        nckd = kl_divergence(student_others, teacher_others)
        return self.temperature ** 2 * (self.alpha * tckd + self.beta * nckd)


def _decouple(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits ``(B, 2)`` of target against rest, and ``(B, C - 1)`` of the rest."""
    labels = labels.unsqueeze(1)
    others = torch.arange(logits.shape[1] - 1, device=logits.device)
    others = others + (others >= labels)  # (B, C - 1): every class but the label
    rest = logits.gather(1, others)
    return torch.cat([logits.gather(1, labels), rest.logsumexp(1, keepdim=True)], dim=1), rest
