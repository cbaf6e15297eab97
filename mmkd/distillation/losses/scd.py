"""Which samples of a batch are attended alike, made consistent from layer to layer."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmkd.distillation.losses._errors import InputError
from mmkd.distillation.losses._features import check_maps, unit
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['SCDLoss']

_EPSILON = 1e-7
"""Keeps the logarithm finite where two attention maps have nothing in common."""


def _l2(student: Tensor, teacher: Tensor) -> Tensor:
    return (unit(student, dim=1) - unit(teacher, dim=1)).square().mean()


def _l1(student: Tensor, teacher: Tensor) -> Tensor:
    return (unit(student, dim=1) - unit(teacher, dim=1)).abs().mean()


def _kl(student: Tensor, teacher: Tensor) -> Tensor:
    # A zero row stays zero and contributes nothing.
    student, teacher = (s / s.sum(1, keepdim=True).clamp(min=_EPSILON)
                        for s in (student, teacher))
    return (teacher * ((teacher + _EPSILON) / (student + _EPSILON)).log()).sum(1).mean()


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = dict(l2=_l2, l1=_l1, kl=_kl)


class SCDLoss(nn.Module):
    r"""Distance of the attention similarities of a shallow layer to those of the next deeper one.

    Of each image ``b`` and layer ``l`` the attention map is
    ``a_b = Q_b / ||Q_b||_2``, ``Q_b = vec(pool(1/C sum_c |F_{bc}|^p))``. In a batch of ``B``
    images the maps' similarities ``S_ij = a_i^T a_j`` form one ``(B, B)`` matrix per layer, of
    which ``G`` is the row-normalised form. ``distance`` is one of

    * ``'l2'``: ``1/B^2 ||G^l - G^{l+1}||_F^2``, rows of length 1 (L2),
    * ``'l1'``: ``1/B^2 sum_ij |G^l_ij - G^{l+1}_ij|``, rows of length 1 (L2),
    * ``'kl'``: ``1/B sum_i KL(G^{l+1}_i || G^l_i)``, rows that sum to 1.

    The network learns from itself in one stage: as a term of a
    :class:`~mmkd.distillation.SelfTerm` over taps from shallow to deep,
    ``L = CE + weight * sum_l distance(G^l, G^{l+1})``, in one direction, the deeper a constant.
    The image of a zero feature has similarity 0 and gets no gradient; in a batch of one nothing
    is to be learnt and the loss is 0.

    Source: X. Wan, Y. Mao, Z. Wang, Y. Liu, P. Ping, "Similarity and Consistency by
    Self-distillation Method", Computer Science 50(11), 2023, doi 10.11896/jsjkx.221000009. Known
    of it are the attention maps from the distribution of a layer's feature weights, one matrix of
    their similarities in the mini-batch per layer, its normalisation, and that shallow layers
    learn from deep ones. This project's choices where it leaves them open: the attention map is
    that of attention transfer (arXiv 1612.03928), the similarity its cosine, the rows are
    normalised as in SPKD (arXiv 1907.09682), whose distance is the default; the diagonal is kept;
    each layer learns from the next one alone; the layers are the ends of the stages, and the weight
    is this project's.

    Args:
        p: power of the activations, above 0.
        pool: attention maps higher or wider than this are average-pooled to ``(pool, pool)``;
            None to leave them as they are.
        distance: ``'l2'``, ``'l1'`` or ``'kl'``.

    Raises:
        InputError: there is no such distance, or ``p`` or ``pool`` is out of range.
    """

    def __init__(self, p: float = 2.0, pool: int | None = 8, distance: str = 'l2') -> None:
        super().__init__()
        if distance not in DISTANCES:
            raise InputError(f"SCDLoss has no distance {distance!r}: use 'l2', 'l1' or 'kl'")
        if not p > 0 or (pool is not None and not pool > 0):
            raise InputError(f'SCDLoss has p {p!r} and pool {pool!r}: give numbers above 0, or '
                             'pool=None')
        self.p = p
        self.pool = pool
        self.distance = distance

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: the shallow layer, ``(B, C_s, H_s, W_s)``.
            teacher: the deeper layer, ``(B, C_t, H_t, W_t)``; gets no gradient.

        Returns:
            a scalar.

        Raises:
            InputError: a feature is not four-dimensional or the batches differ.
        """
        check_maps(student, teacher)
        with torch.autocast(device_type=student.device.type, enabled=False):
            return DISTANCES[self.distance](self._similarity(student),
                                            self._similarity(teacher.detach()))

    def _similarity(self, feature: Tensor) -> Tensor:
        attention = at_least_float32(feature).abs().pow(self.p).mean(1, keepdim=True)
        if self.pool is not None:
            size = [min(side, self.pool) for side in attention.shape[2:]]
            attention = F.adaptive_avg_pool2d(attention, size)
        attention = unit(attention.flatten(1), dim=1)
        return attention @ attention.T
