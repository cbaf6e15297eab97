"""Which samples of a batch are alike, made alike."""

import torch
from torch import Tensor, nn

from mmkd.distillation.losses._features import unit
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['SimilarityPreservingLoss']


class SimilarityPreservingLoss(nn.Module):
    r"""Squared difference of two row-normalised matrices of similarities in the batch.

    ``L = 1 / B^2 * ||G^t - G^s||_F^2`` with ``G_i = S_i / ||S_i||_2`` for each row of
    ``S = Q Q^T``, ``Q`` the features reshaped to ``(B, C H W)``. The row of a zero feature is 0
    and gets no gradient. In a batch of one both ``G`` are 1, so the loss is 0.

    Source: F. Tung, G. Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019,
    arXiv 1907.09682.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: ``(B, ...)``.
            teacher: ``(B, ...)``, the dimensions behind the batch may differ; gets no gradient.

        Returns:
            a scalar.
        """
        with torch.autocast(device_type=student.device.type, enabled=False):
            return (_similarity(student) - _similarity(teacher.detach())).square().mean()


def _similarity(feature: Tensor) -> Tensor:
    feature = at_least_float32(feature).flatten(1)
    return unit(feature @ feature.T, dim=1)
