"""Centre heatmaps made alike, most where they differ most."""

import torch
from torch import Tensor, nn

from mmkd.distillation.losses._distributed import sum_over_processes, world_size
from mmkd.distillation.losses._image_weights import weighted
from mmkd.distillation.losses._peaks import peaks
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['SoftFocalLoss']


class SoftFocalLoss(nn.Module):
    r"""Focal loss of a heatmap whose target is another heatmap.

    ``L = 1/M * sum_{bcyx} |p - q|^2 [BCE(p, q) - H(q)]``,
    ``M = max(1, sum of q over its maxima in 3x3 cells with q >= 0.1)``

    with ``BCE(p, q) = -q log p - (1 - q) log(1 - p)`` and ``H(q) = BCE(q, q)``. ``M`` counts the
    objects that the teacher sees, in all processes, so that the term, as CenterNet's own focal
    loss, is a loss per object: it does not depend on the number of classes or the size of the map,
    and it is 0 where student and teacher agree.

    With ``balance`` the cells of class ``c`` count ``w_c = M / (K max(1, M_c))`` times, where
    ``M_c`` is the part of ``M`` in class ``c`` and ``K`` the number of classes with ``M_c >= 1``:
    each class then has the same say, as in a mean of average precisions, however rare its
    objects are. Other classes have ``w_c = 1``.

    Source: quality focal loss, X. Li et al., "Generalized Focal Loss", NeurIPS 2020, arXiv
    2006.04388, equation 5 with beta = 2, with the teacher's heatmap as the quality. Subtracting
    ``H`` and dividing by ``M`` are this project's.

    Args:
        min_score: a lower maximum is no object.
        balance: whether each class has the same say.
    """

    def __init__(self, min_score: float = 0.1, balance: bool = False) -> None:
        super().__init__()
        self.min_score = min_score
        self.balance = balance

    def forward(self, student: Tensor, teacher: Tensor,
                image_weights: Tensor | None = None) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: ``(B, C, H, W)``, probabilities.
            teacher: the same shape; gets no gradient.
            image_weights: ``(B,)``, a factor for each image; None for 1.

        Returns:
            a scalar.
        """
        p, q = at_least_float32(student), at_least_float32(teacher.detach())
        losses = (p - q).square() * (_cross_entropy(p, q) - _cross_entropy(q, q))
        objects = sum_over_processes(peaks(q, self.min_score).sum((0, 2, 3)))
        total = objects.sum().clamp(min=1)
        if self.balance:
            seen = objects >= 1
            weights = torch.where(seen, total / (seen.sum() * objects.clamp(min=1)), 1.0)
            losses = losses * weights[:, None, None]
        return weighted(losses, image_weights).sum() / (total / world_size())


def _cross_entropy(p: Tensor, q: Tensor) -> Tensor:
    # Not torch's, which autocast refuses on a GPU. A sigmoid may round to 0 or 1.
    return -(q * torch.log(p + 1e-12) + (1 - q) * torch.log(1 - p + 1e-12))
