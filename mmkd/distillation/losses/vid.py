"""Mutual information between student and teacher features, from below."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmkd.distillation.losses._errors import InputError
from mmkd.distillation.losses._features import at_smaller_size
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['VIDLoss']

MIN_VARIANCE = 1e-5


class VIDLoss(nn.Module):
    r"""Negative log likelihood of the teacher's feature given the student's.

    ``L = mean_{b,c,y,x} [ (t_{bcyx} - mu(s)_{bcyx})^2 / (2 sigma_c^2) + 1/2 log sigma_c^2 ]``,
    ``sigma_c^2 = log(1 + exp(alpha_c)) + 1e-5``

    with a regressor ``mu`` of three 1x1 convolutions, ReLU between them, and a variance per
    channel, both trained with the student. The constant ``1/2 log 2 pi`` is left out, so the
    loss may be negative. Maps that differ in size are compared at the smaller, the larger
    average-pooled.

    Source: S. Ahn, S. X. Hu, A. Damianou, N. D. Lawrence, Z. Dai, "Variational Information
    Distillation for Knowledge Transfer", CVPR 2019, arXiv 1904.05835, which sums over channels
    and cells; the mean, the regressor's width (the teacher's channels) and a weight of 1
    per tapped stage are RepDistiller's.

    Args:
        student_channels: ``C_s``.
        teacher_channels: ``C_t``.
        init_variance: ``sigma_c^2`` to start from.

    Raises:
        InputError: the initial variance is not above the lower bound of 1e-5.
    """

    def __init__(self, student_channels: int, teacher_channels: int,
                 init_variance: float = 5.0) -> None:
        super().__init__()
        if not init_variance > MIN_VARIANCE:
            raise InputError(f'VIDLoss needs an init_variance above {MIN_VARIANCE}, not '
                             f'{init_variance!r}')
        self.regressor = nn.Sequential(
            nn.Conv2d(student_channels, teacher_channels, 1, bias=False), nn.ReLU(),
            nn.Conv2d(teacher_channels, teacher_channels, 1, bias=False), nn.ReLU(),
            nn.Conv2d(teacher_channels, teacher_channels, 1, bias=False))
        alpha = math.log(math.expm1(init_variance - MIN_VARIANCE))
        self.alpha = nn.Parameter(torch.full((teacher_channels,), alpha))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: ``(B, C_s, H, W)``.
            teacher: ``(B, C_t, H', W')``; gets no gradient.

        Returns:
            a scalar.

        Raises:
            InputError: one is not four-dimensional, or the batches differ.
        """
        with torch.autocast(device_type=student.device.type, enabled=False):
            student, teacher = at_smaller_size(at_least_float32(student),
                                               at_least_float32(teacher.detach()))
            variance = (F.softplus(self.alpha) + MIN_VARIANCE).view(1, -1, 1, 1)
            error = (teacher - self.regressor(student)).square()
            return (error / variance + variance.log()).mean() / 2
