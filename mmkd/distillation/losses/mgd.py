"""The teacher's feature generated from part of the student's."""

import torch
from torch import Tensor, nn

from mmkd.distillation.losses._errors import InputError
from mmkd.distillation.losses._features import check_same_shape
from mmkd.distillation.losses._image_weights import mean_of_images
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['MGDLoss']


class MGDLoss(nn.Module):
    r"""Square error of the teacher's feature as restored from a student's that has holes.

    ``L = alpha / B * sum_{bcyx} (T_{bcyx} - G(S * M)_{bcyx})^2``,
    ``M_{byx} = 0 if R_{byx} > 1 - lambda else 1``, ``R_{byx}`` uniform in ``[0, 1)``

    where the generator ``G`` is a 3x3 convolution, ReLU and a 3x3 convolution, all with the
    teacher's channels, and trains with the student. One mask serves all channels and is drawn
    anew in every call, on the device of the feature, from torch's global generator.

    ``L`` is a sum over channels and cells, as published: it grows with the size of the map, and
    with the size of the input. It is not 0 where student and teacher are equal, but where
    the generator restores the teacher.

    Source: Z. Yang, Z. Li, M. Shao, D. Shi, Z. Yuan, C. Yuan, "Masked Generative Distillation",
    ECCV 2022, arXiv 2205.01529, and its code. ``alpha`` and ``lambda`` there: 2e-5 and 0.65 for
    one-stage detectors (RetinaNet, RepPoints, SOLO) on five levels; 5e-7 and 0.45 for two-stage
    (Faster and Mask R-CNN) on four; taps ``neck.fpn_convs.*.conv``; its students begin with the
    teacher's neck and head. The code aligns channels inside the loss by a 1x1 convolution where
    they differ; here that is the term's ``ConvConnector``.

    Args:
        teacher_channels: ``C``.
        alpha: factor of the sum.
        mask_ratio: ``lambda``, the share of cells that are masked, in ``[0, 1)``.

    Raises:
        InputError: ``mask_ratio`` is not in ``[0, 1)``.
    """

    def __init__(self, teacher_channels: int, alpha: float = 2e-5,
                 mask_ratio: float = 0.65) -> None:
        super().__init__()
        if not 0 <= mask_ratio < 1:
            raise InputError(f'MGDLoss needs a mask_ratio of at least 0 and below 1, not '
                             f'{mask_ratio!r}: it is the share of cells that are masked')
        self.alpha, self.mask_ratio = alpha, mask_ratio
        self.generator = nn.Sequential(
            nn.Conv2d(teacher_channels, teacher_channels, 3, padding=1), nn.ReLU(),
            nn.Conv2d(teacher_channels, teacher_channels, 3, padding=1))

    def forward(self, student: Tensor, teacher: Tensor,
                image_weights: Tensor | None = None) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: ``(B, C, H, W)``, already with the teacher's channels.
            teacher: the same shape; gets no gradient.
            image_weights: ``(B,)``, a factor for each image; None for 1.

        Returns:
            a scalar.

        Raises:
            InputError: the shapes differ or are not four-dimensional.
        """
        check_same_shape(student, teacher, 'MGDLoss')
        student, teacher = at_least_float32(student), at_least_float32(teacher.detach())
        batch, _, height, width = student.shape
        # In float32 whatever the feature is, so that one seed means one mask.
        noise = torch.rand(batch, 1, height, width, device=student.device)
        kept = noise <= 1 - self.mask_ratio
        with torch.autocast(device_type=student.device.type, enabled=False):
            restored = self.generator(student * kept)
        squares = (restored - teacher).square().flatten(1).sum(1)
        return self.alpha * mean_of_images(squares, image_weights)
