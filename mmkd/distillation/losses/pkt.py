"""How likely one sample is to be another's neighbour, made alike."""

import torch
from torch import Tensor, nn

from mmkd.distillation.losses._features import unit
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['PKTLoss']

_EPSILON = 1e-7
"""Keeps the logarithm finite for opposite samples; RepDistiller's."""


class PKTLoss(nn.Module):
    r"""Divergence of two matrices of neighbourhood probabilities in the batch.

    ``L = 1 / B^2 * sum_{ij} p^t_{ij} log((p^t_{ij} + eps) / (p^s_{ij} + eps))`` with
    ``p_{ij} = K(x_i, x_j) / sum_k K(x_i, x_k)`` and the cosine kernel
    ``K(a, b) = (a^T b / (||a||_2 ||b||_2) + 1) / 2``; ``eps = 1e-7``. A zero feature has cosine 0
    with every sample and gets no gradient. In a batch of one both ``p`` are 1, so the loss is 0.

    Source: N. Passalis, A. Tefas, "Learning Deep Representations with Probabilistic Knowledge
    Transfer", ECCV 2018, arXiv 1803.10837. The paper leaves out ``i = j`` and ``k = i``, and
    sums; the diagonal, ``eps`` and the mean over ``B^2`` are its authors' and RepDistiller's code,
    to which the weight of 30000 belongs.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: ``(B, D_s)``, or ``(B, ...)``, which is flattened.
            teacher: ``(B, D_t)``, likewise; gets no gradient.

        Returns:
            a scalar.
        """
        with torch.autocast(device_type=student.device.type, enabled=False):
            student, teacher = _probabilities(student), _probabilities(teacher.detach())
            ratio = (teacher + _EPSILON) / (student + _EPSILON)
            return (teacher * ratio.log()).mean()


def _probabilities(feature: Tensor) -> Tensor:
    feature = unit(at_least_float32(feature).flatten(1), dim=1)
    kernel = (feature @ feature.T + 1) / 2
    return kernel / kernel.sum(1, keepdim=True)
