"""Hinton's knowledge distillation."""

from torch import Tensor, nn

from mmkd.distillation.losses._errors import check_temperature
from mmkd.distillation.losses._logits import kl_divergence, scaled_logits

__all__ = ['KDLoss']


class KDLoss(nn.Module):
    r"""Kullback-Leibler divergence of softened class probabilities.

    ``L = T^2 / B * sum_b sum_c p^t_{bc} log(p^t_{bc} / p^s_{bc})`` with ``p = softmax(z / T)``.
    ``T^2`` keeps the size of the gradient independent of the temperature.

    Source: G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", NIPS
    2014 Deep Learning Workshop, arXiv 1503.02531. The paper minimises the cross-entropy, which
    has the same gradient and is not 0 where student and teacher agree.

    Args:
        temperature: ``T`` > 0; the CIFAR literature's 4.

    Raises:
        InputError: the temperature is not above 0.
    """

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__()
        check_temperature(temperature, type(self).__name__)
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
        return self.temperature ** 2 * kl_divergence(student, teacher)
