"""Channels seen as a distribution over space, made alike."""

import torch
from torch import Tensor, nn

from mmkd.distillation.losses._features import at_smaller_size, unit
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['NSTLoss']


class NSTLoss(nn.Module):
    r"""Squared maximum mean discrepancy of the channels' spatial patterns.

    Per sample, with ``f_c`` a channel flattened over space and divided by its L2 norm,
    ``L = 1/C_s^2 sum_{ij} k(f^s_i, f^s_j) + 1/C_t^2 sum_{ij} k(f^t_i, f^t_j)
    - 2 / (C_s C_t) sum_{ij} k(f^s_i, f^t_j)``, ``k(x, y) = (x^T y)^2``; then the mean over the
    batch. Channels need not agree; of two sizes the larger feature is average-pooled to the
    smaller. A channel that is zero everywhere stays zero and gets no gradient.

    Source: Z. Huang, N. Wang, "Like What You Like: Knowledge Distill via Neuron Selectivity
    Transfer", 2017, arXiv 1707.01219: its polynomial kernel with d = 2, c = 0. The paper weighs
    half of it; without the half it is RepDistiller's, to which the weight of 50 belongs.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: ``(B, C_s, H_s, W_s)``.
            teacher: ``(B, C_t, H_t, W_t)``; gets no gradient.

        Returns:
            a scalar.

        Raises:
            InputError: a feature is not four-dimensional or the batches differ.
        """
        student, teacher = at_smaller_size(at_least_float32(student),
                                           at_least_float32(teacher.detach()))
        student, teacher = unit(student.flatten(2), dim=2), unit(teacher.flatten(2), dim=2)
        with torch.autocast(device_type=student.device.type, enabled=False):
            return (_kernel_mean(student, student) + _kernel_mean(teacher, teacher)
                    - 2 * _kernel_mean(student, teacher))


def _kernel_mean(a: Tensor, b: Tensor) -> Tensor:
    """Mean of ``k`` over all pairs of channels of ``(B, C_a, N)`` and ``(B, C_b, N)``."""
    return (a @ b.transpose(1, 2)).square().mean()
