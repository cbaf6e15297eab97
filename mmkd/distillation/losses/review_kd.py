"""Features compared at several coarsenesses."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from mmkd.distillation.losses._errors import InputError
from mmkd.distillation.losses._image_weights import mean_of_images
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['ReviewKDLoss']


class ReviewKDLoss(nn.Module):
    r"""Hierarchical context loss (HCL), summed over stages.

    ``L = sum_l [ sum_k a_k MSE(P_k(s_l), P_k(t_l)) ] / sum_k a_k``

    where ``P_0`` is the identity and ``P_1, P_2, ...`` average-pool to 4x4, 2x2 and 1x1, of
    those only the ones below the map's own height and width; ``a_k = 2^{-k}``. A ``(B, C)``
    embedding counts as a 1x1 map.

    Use it with :class:`~mmkd.distillation.connectors.ReviewConnector`.

    Source: P. Chen, S. Liu, H. Zhao, J. Jia, "Distilling Knowledge via Knowledge Review", CVPR
    2021, arXiv 2104.09044. The levels and their weights are those of the authors' code and of
    mdistiller, which taps all stages before their last ReLU in the teacher and after it in the
    student, and the pooled embeddings; the weight depends on the pair (5 for ResNet32x4 with
    ResNet8x4) and rises over 20 epochs. On ImageNet it is 1, for MobileNetV1 8, does not rise, and
    the student's stages, too, are tapped before their last ReLU. For Faster R-CNN they take the
    five maps of the FPN, with the weights 1.2, 1 and 2 for students with ResNet-18, ResNet-50 and
    MobileNetV2.
    """

    multi_level = True

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor],
                image_weights: Tensor | None = None) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: maps ``(B, C, H, W)`` or embeddings ``(B, C)``, already in the teacher's
                feature space.
            teacher: as many, of the same shapes; get no gradient.
            image_weights: ``(B,)``, a factor for each image; None for 1.

        Returns:
            a scalar.

        Raises:
            InputError: the shapes differ.
        """
        ours, theirs = ([tuple(f.shape) for f in features] for features in (student, teacher))
        if ours != theirs:
            raise InputError(f'student features of shapes {ours} cannot be compared with teacher '
                             f"features of shapes {theirs}: give the term connector=dict("
                             "type='ReviewConnector')")
        return sum(_hcl(at_least_float32(s), at_least_float32(t.detach()), image_weights)
                   for s, t in zip(student, teacher, strict=True))


def _hcl(student: Tensor, teacher: Tensor, image_weights: Tensor | None) -> Tensor:
    loss, weight, total = _mse(student, teacher, image_weights), 1.0, 1.0
    for size in (4, 2, 1):
        if student.dim() == 4 and size < min(student.shape[2:]):
            weight /= 2
            total += weight
            loss = loss + weight * _mse(F.adaptive_avg_pool2d(student, size),
                                        F.adaptive_avg_pool2d(teacher, size), image_weights)
    return loss / total


def _mse(student: Tensor, teacher: Tensor, image_weights: Tensor | None) -> Tensor:
    if image_weights is None:
        return F.mse_loss(student, teacher)
    return mean_of_images((student - teacher).square().flatten(1).mean(1), image_weights)
