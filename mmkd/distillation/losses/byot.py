"""What the deepest classifier of a network knows, taught to its shallow ones."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmkd.distillation.losses._errors import InputError, check_temperature
from mmkd.distillation.losses._logits import kl_divergence, scaled_logits
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['BYOTLoss']


class BYOTLoss(nn.Module):
    r"""Labels, the deepest classifier's probabilities and its feature, for each shallow classifier.

    ``L = sum_i (1 - alpha) CE(z_i, y) + alpha T^2 KL(p_C || p_i) + hint_weight MSE(f_i, f_C)``

    over the auxiliary classifiers ``i`` with logits ``z_i``, ``p = softmax(z / T)`` and pooled
    features ``f_i``; those of the deepest classifier ``C`` are constants, and its own cross-entropy
    is the network's. The classifiers come from
    :class:`~mmkd.classification.AuxiliaryClassifiers`.

    Source: L. Zhang, J. Song, A. Gao, J. Chen, C. Bao, K. Ma, "Be Your Own Teacher: Improve the
    Performance of Convolutional Neural Networks via Self Distillation", ICCV 2019, arXiv
    1905.08094. From the paper: the three terms, and that the deepest classifier has
    ``alpha = lambda = 0``. The values are those of code: ``alpha`` 0.3, ``T`` 3, the hint's 0.03
    and that it compares pooled features come from its first author's pytorch-self-distillation and
    what was built on it, where the hint is the norm of the whole batch's difference and the KL has
    no ``T^2``. The paper's hint is the squared norm; here it is the mean of the squares, so that
    a weight means the same for every batch and width. (The usual reimplementation, from which
    ``T^2`` comes, has ``alpha`` 0.1 and, in this mean, 0.066 for 128 images of 512 channels.)

    Args:
        alpha: share of the deepest classifier against the labels, in ``[0, 1]``.
        temperature: ``T`` > 0.
        hint_weight: ``lambda``, at least 0.

    Raises:
        InputError: ``alpha`` is out of its range, or the temperature is not above 0.
    """

    multi_level = True

    def __init__(self, alpha: float = 0.3, temperature: float = 3.0,
                 hint_weight: float = 0.03) -> None:
        super().__init__()
        if not 0 <= alpha <= 1:
            raise InputError(f'BYOTLoss has alpha {alpha!r}: give a share from 0 to 1')
        check_temperature(temperature, 'BYOTLoss')
        self.alpha = alpha
        self.temperature = temperature
        self.hint_weight = hint_weight

    def forward(self, student: Sequence[tuple[Tensor, Tensor]], teacher: Sequence[Tensor],
                labels: Tensor) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: feature ``(B, D)`` and logits ``(B, C)`` of every auxiliary classifier.
            teacher: the deepest classifier's feature ``(B, D)`` and logits ``(B, C)``; of a longer
                list the last two. Get no gradient.
            labels: ``(B,)`` int64.

        Returns:
            a scalar.

        Raises:
            InputError: the shapes do not fit.
        """
        feature, logits = teacher[-2:]
        return torch.stack([self._of_one(*one, feature, logits, labels) for one in student]).sum()

    def _of_one(self, feature: Tensor, logits: Tensor, deep_feature: Tensor, deep_logits: Tensor,
                labels: Tensor) -> Tensor:
        if feature.shape != deep_feature.shape:
            raise InputError(f'the auxiliary feature of shape {tuple(feature.shape)} cannot be '
                             'compared with the deepest feature of shape '
                             f"{tuple(deep_feature.shape)}: give the term connector=dict(type="
                             "'AuxiliaryClassifiers') and tap ['backbone.stage?', "
                             "'backbone.embedding', 'head.fc']")
        divergence = kl_divergence(*scaled_logits(logits, deep_logits, self.temperature))
        hint = F.mse_loss(at_least_float32(feature), at_least_float32(deep_feature.detach()))
        return ((1 - self.alpha) * F.cross_entropy(at_least_float32(logits), labels)
                + self.alpha * self.temperature ** 2 * divergence + self.hint_weight * hint)
