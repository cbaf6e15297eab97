"""Relations between classes and between samples, made alike up to scale and shift."""

import torch
from torch import Tensor, nn

from mmkd.distillation.losses._errors import check_temperature
from mmkd.distillation.losses._logits import scaled_logits

__all__ = ['DISTLoss']


class DISTLoss(nn.Module):
    r"""Pearson distance of the class probabilities, by rows and by columns.

    ``L = T^2 * [beta / B * sum_b d(Y^s_{b,:}, Y^t_{b,:})
    + gamma / C * sum_c d(Y^s_{:,c}, Y^t_{:,c})]`` with ``Y = softmax(z / T)`` and
    ``d = 1 - rho``, ``rho`` Pearson's correlation: the relations among classes within a sample
    ("inter") and among samples within a class ("intra").

    A row or column that is constant up to rounding correlates with nothing: ``d = 1``, without
    gradient. A batch of one has no relations among samples, so its second term is 0.

    Source: T. Huang, S. You, F. Wang, C. Qian, C. Xu, "Knowledge Distillation from A Stronger
    Teacher", NeurIPS 2022, arXiv 2205.10536. ``T^2``, and 1e-8 added to the denominator
    of ``rho`` (which mutes classes that are improbable in the whole batch), are its authors' code.

    Args:
        beta: weight of the inter-class term.
        gamma: weight of the intra-class term.
        temperature: ``T`` > 0.

    Raises:
        InputError: the temperature is not above 0.
    """

    def __init__(self, beta: float = 1.0, gamma: float = 1.0, temperature: float = 1.0) -> None:
        super().__init__()
        check_temperature(temperature, 'DISTLoss')
        self.beta = beta
        self.gamma = gamma
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: ``(B, C)`` logits.
            teacher: the same shape; gets no gradient.

        Returns:
            a scalar.

        Raises:
            InputError: the shapes differ or are not ``(B, C)``.
        """
        student, teacher = scaled_logits(student, teacher, self.temperature)
        student, teacher = student.softmax(1), teacher.softmax(1)
        loss = self.beta * _pearson_distance(student, teacher)
        if len(student) > 1:
            loss = loss + self.gamma * _pearson_distance(student.T, teacher.T)
        return self.temperature ** 2 * loss


def _pearson_distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean over rows of ``1 - rho``."""
    a, b = _centred(a), _centred(b)
    norms = torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b, dim=1)
    return (1 - (a * b).sum(1) / (norms + 1e-8)).mean()


def _centred(rows: Tensor) -> Tensor:
    """Rows less their mean; those that are constant up to rounding become 0."""
    centred = rows - rows.mean(1, keepdim=True)
    rounding = 10 * torch.finfo(rows.dtype).eps * rows.abs().amax(1, keepdim=True)
    return centred.masked_fill(centred.abs().amax(1, keepdim=True) <= rounding, 0)
