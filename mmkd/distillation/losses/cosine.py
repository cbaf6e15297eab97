"""Features alike in direction, cell by cell."""

import torch.nn.functional as F
from torch import Tensor, nn

from mmkd.distillation.losses._errors import InputError
from mmkd.distillation.losses._features import check_maps, unit
from mmkd.distillation.losses._image_weights import mean_of_images
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['CosineLoss']


class CosineLoss(nn.Module):
    r"""One less the cosine of the angle between two features, averaged over the cells.

    ``L = 1 / (B H W) * sum_{byx} [1 - <s_{byx}, t_{byx}> / (|s_{byx}| |t_{byx}|)]``

    over the feature vectors of the cells. The length of the vectors does not count, so the
    teacher may be of any scale, such as a foundation model. The cosine with a zero vector
    is 0, without gradient. A teacher's map of another size is resampled bilinearly to the
    student's.

    Source: Z. Liao, Y. Zhao, X. Shan, Y. Yan, C. Liu, L. Lu, X. Ji, J. Chen, "RT-DETRv4:
    Painlessly Furthering Real-Time Object Detection with Vision Foundation Models", 2025, arXiv
    2510.25257, and its code: the student is the deepest map of the encoder, projected to
    the teacher's channels by a linear layer for each cell (here the term's ``ConvConnector``),
    the teacher the patch tokens of DINOv3. Its rule that adapts the term's weight by the share of
    the gradient is no part of this loss.
    """

    def forward(self, student: Tensor, teacher: Tensor,
                image_weights: Tensor | None = None) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: ``(B, C, H, W)``, already with the teacher's channels.
            teacher: ``(B, C, H', W')``; gets no gradient.
            image_weights: ``(B,)``, a factor for each image; None for 1.

        Returns:
            a scalar.

        Raises:
            InputError: a feature is not four-dimensional, or batches or channels differ.
        """
        check_maps(student, teacher)
        if student.shape[1] != teacher.shape[1]:
            raise InputError(f'CosineLoss compares vectors of one length, and a cell of the '
                             f'student has {student.shape[1]} channels, one of the teacher '
                             f"{teacher.shape[1]}: add connector=dict(type='ConvConnector')")
        student, teacher = at_least_float32(student), at_least_float32(teacher.detach())
        if teacher.shape[2:] != student.shape[2:]:
            teacher = F.interpolate(teacher, student.shape[2:], mode='bilinear',
                                    align_corners=False)
        cosines = (unit(student, dim=1) * unit(teacher, dim=1)).sum(1)
        return mean_of_images(1 - cosines.flatten(1).mean(1), image_weights)
