"""Hints from an intermediate layer of the teacher."""

import torch.nn.functional as F
from torch import Tensor, nn

from mmkd.distillation.losses._errors import InputError
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['FitNetLoss']


class FitNetLoss(nn.Module):
    r"""Mean square difference of a student's and a teacher's feature.

    ``L = mean((r(F^s) - F^t)^2)`` over batch, channels and cells, where the regressor ``r`` is the
    term's connector.

    Source: A. Romero, N. Ballas, S. E. Kahou, A. Chassang, C. Gatta, Y. Bengio, "FitNets: Hints
    for Thin Deep Nets", ICLR 2015, arXiv 1412.6550. The paper takes half the sum of squares and
    trains the lower half of the student with it before anything else; as in RepDistiller
    it is a mean, and one term of a single training.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: ``(B, C, H, W)`` or ``(B, D)``, already in the teacher's feature space.
            teacher: the same shape; gets no gradient.

        Returns:
            a scalar.

        Raises:
            InputError: the shapes differ.
        """
        if student.shape != teacher.shape:
            raise InputError(f'a student feature of shape {tuple(student.shape)} cannot be '
                             f'compared with a teacher feature of shape {tuple(teacher.shape)}: '
                             'give the term a connector, or tap layers of the same size')
        return F.mse_loss(at_least_float32(student), at_least_float32(teacher.detach()))
