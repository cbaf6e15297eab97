"""How samples of a batch correlate, made congruent."""

import math

import torch
from torch import Tensor, nn

from mmkd.distillation.losses._errors import InputError
from mmkd.distillation.losses._features import unit
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['CCLoss']


class CCLoss(nn.Module):
    r"""Correlation congruence: squared difference of two correlation matrices of the batch.

    ``L_CC = 1/B^2 ||C^t - C^s||_F^2``, ``C_ij = e^{-2 gamma} sum_{p=0}^{P} (2 gamma)^p / p!
    (f_i . f_j)^p``

    with the features ``f`` divided by their L2 norm: the Taylor series, up to order ``P``, of the
    Gaussian kernel ``exp(-gamma ||f_i - f_j||^2)``. A zero feature stays zero and gets no gradient;
    in a batch of one there is nothing to correlate.

    Source: B. Peng, X. Jin, J. Liu, S. Zhou, Y. Wu, Y. Liu, D. Li, Z. Zhang, "Correlation
    Congruence for Knowledge Distillation", ICCV 2019, arXiv 1904.01802, whose correlation part this
    is; it adds KD and draws batches by class. ``gamma``, ``P`` and a weight of 100 are those
    of a public reimplementation (Knowledge-Distillation-Zoo). RepDistiller, with a weight of 0.02,
    has another formula from the authors: the mean of ``sum_d |e_id| |e_{i+1,d}|`` over neighbours
    in the batch, ``e`` the difference of two trained embeddings. That has no matrix of
    correlations, and is 0 as soon as both embeddings are, which is why it is not here.

    Args:
        gamma: of the Gaussian, above 0.
        order: ``P``, at least 1.

    Raises:
        InputError: an argument is out of its range.
    """

    def __init__(self, gamma: float = 0.4, order: int = 2) -> None:
        super().__init__()
        if not gamma > 0 or order < 1:
            raise InputError(f'CCLoss has gamma {gamma!r} and order {order!r}: give a gamma above '
                             '0 and an order of at least 1')
        self.gamma, self.order = gamma, order

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: ``(B, D_s)``, or ``(B, ...)``, which is flattened.
            teacher: ``(B, D_t)``, likewise; gets no gradient.

        Returns:
            a scalar.

        Raises:
            InputError: the batches differ.
        """
        if len(student) != len(teacher):
            raise InputError(f'a student feature of shape {tuple(student.shape)} and a teacher '
                             f'feature of shape {tuple(teacher.shape)} are not of one batch: tap '
                             'embeddings in both')
        with torch.autocast(device_type=student.device.type, enabled=False):
            difference = self._correlations(teacher.detach()) - self._correlations(student)
            return difference.square().mean()

    def _correlations(self, feature: Tensor) -> Tensor:
        feature = unit(at_least_float32(feature).flatten(1), dim=1)
        cosines = feature @ feature.T
        series = sum((2 * self.gamma) ** p / math.factorial(p) * cosines ** p
                     for p in range(self.order + 1))
        return math.exp(-2 * self.gamma) * series
