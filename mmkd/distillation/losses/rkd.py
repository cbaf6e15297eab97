"""Relations between the samples of a batch: their distances and angles."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmkd.distillation.losses._features import unit
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['RKDLoss']


class RKDLoss(nn.Module):
    r"""Smooth L1 difference of all pairwise distances and of all angles in triplets.

    ``L = w_D / B^2 * sum_{ij} l(psi_D(s_i, s_j), psi_D(t_i, t_j))
    + w_A / B^3 * sum_{ijk} l(psi_A(s_i, s_j, s_k), psi_A(t_i, t_j, t_k))`` with

    * ``psi_D(x_i, x_j) = ||x_i - x_j||_2 / mu``, ``mu`` the mean of the distances that are not 0,
    * ``psi_A(x_i, x_j, x_k) = <e_ij, e_kj>``, ``e_ij = (x_i - x_j) / ||x_i - x_j||_2``,
    * ``l`` the Huber loss with delta 1.

    Sums run over all indices, equal ones too. Where samples coincide, distance and direction
    are 0 and get no gradient, so a batch of one has loss 0. Takes memory ``B^2 D + B^3``: tap
    embeddings.

    Source: W. Park, D. Kim, Y. Lu, M. Cho, "Relational Knowledge Distillation", CVPR 2019,
    arXiv 1904.05068. The paper sums over tuples of distinct samples; the mean over all of them is
    its authors' and RepDistiller's code, which also bounds squared distances by 1e-12 from below,
    so that it counts coinciding samples into ``mu``.

    Args:
        distance_weight: ``w_D``.
        angle_weight: ``w_A``.
    """

    def __init__(self, distance_weight: float = 25.0, angle_weight: float = 50.0) -> None:
        super().__init__()
        self.distance_weight = distance_weight
        self.angle_weight = angle_weight

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: ``(B, D_s)``, or ``(B, ...)``, which is flattened.
            teacher: ``(B, D_t)``, likewise; gets no gradient.

        Returns:
            a scalar.
        """
        with torch.autocast(device_type=student.device.type, enabled=False):
            student_distances, student_angles = _relations(at_least_float32(student))
            teacher_distances, teacher_angles = _relations(at_least_float32(teacher.detach()))
            distance = F.smooth_l1_loss(student_distances, teacher_distances)
            angle = F.smooth_l1_loss(student_angles, teacher_angles)
        return self.distance_weight * distance + self.angle_weight * angle


def _relations(features: Tensor) -> tuple[Tensor, Tensor]:
    """Normalised distances ``(B, B)`` and, per vertex, cosines of angles ``(B, B, B)``."""
    features = features.flatten(1)
    differences = features.unsqueeze(0) - features.unsqueeze(1)
    distances = torch.linalg.vector_norm(differences, dim=2)
    mean = distances.sum() / (distances > 0).sum().clamp(min=1)
    directions = unit(differences, dim=2)
    return (distances / mean.masked_fill(mean == 0, math.inf),
            directions @ directions.transpose(1, 2))
