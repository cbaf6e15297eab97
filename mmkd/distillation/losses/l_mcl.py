"""Networks that learn together whom to be close to, at every stage."""

from collections.abc import Iterable, Sequence
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkd.distillation.losses._errors import InputError
from mmkd.distillation.losses._logits import kl_divergence, scaled_logits
from mmkd.distillation.losses._precision import at_least_float32
from mmkd.distillation.losses.mcl import (
    MCLLoss,
    check_embeddings,
    contrast,
    mimicry,
    similarities,
)

__all__ = ['LMCLLoss', 'StageOutputs', 'cross_entropies']


class StageOutputs(NamedTuple):
    """What the auxiliary heads of a cohort make of its stages.

    ``embeddings[a][k]`` is that of stage ``k`` of member ``a``; the last is the member's own.
    """

    embeddings: Sequence[Sequence[Tensor]]
    """``(B, d)``, rows of norm 1."""
    logits: Sequence[Sequence[Tensor]]
    """``(B, C)``."""
    aggregated: Sequence[Tensor]
    """Of each member the logits ``(B, C)`` of its stages together."""
    weights: Tensor
    """``(N, N, B)``, how much a pair of stages counts for an image; ``N`` stages in all, member
    after member. Those of two stages of one member are not used."""


class LMCLLoss(MCLLoss):
    r"""Layer-wise mutual contrastive learning, and the training of the auxiliary heads.

    Let ``n``, ``m`` be stages of two different members and ``w^nm_i`` the weight that the
    meta-network gives their pair for image ``i``. With ``C_i`` and ``K_i`` the shares of image
    ``i`` in the parts of :class:`MCLLoss`,

    ``L_MCL = 2/B sum_{(n,m)} sum_i w^nm_i [ alpha C_i(S_nn) + beta C_i(S_nm)
    + gamma K_i(S_nn, S_mm) + lambda K_i(S_nm, S_mn) ]``

    over all ordered pairs ``(n, m)``, and

    ``L = L_MCL + sum_{a, k < L_a} CE(z_a^k) + sum_a CE(z~_a) + sum_{a,b} KL_T(z_a || z~_b)``

    with ``z_a^k`` the logits of stage ``k``, of which the last, ``z_a``, has its cross-entropy in
    the cohort's own losses, ``z~_a`` the aggregated logits, and ``KL_T`` as in
    :class:`~mmkd.distillation.losses.KDLoss`, with ``z~_b`` constant and ``b = a`` among them.
    In a process group the batch is that of this process.

    Source: C. Yang, Z. An, H. Zhou, F. Zhuang, Y. Xu, Q. Zhang, "Online Knowledge Distillation via
    Mutual Contrastive Learning for Visual Recognition", TPAMI 45(8), 2023, arXiv 2207.11518;
    numbers and details as in the authors' code for CIFAR-100; for ImageNet see
    :class:`~mmkd.distillation.losses.LMCLMemoryLoss`. The 2 is theirs: they take the four
    losses of both members for ``(a, b)`` and again for ``(b, a)``, so that a stage's own contrast
    ``C(S_nn)`` counts once per pair that it is in.

    Use it with :class:`~mmkd.online.heads.LayerwiseHeads`, which makes :class:`StageOutputs`, and
    :class:`~mmkd.online.meta.MetaOptimizeHook`.

    Args:
        temperature: ``tau`` > 0.
        kd_temperature: ``T`` > 0.
        vcl: ``alpha``.
        soft_vcl: ``gamma``.
        icl: ``beta``.
        soft_icl: ``lambda``.

    Raises:
        InputError: a temperature is not above 0.
    """

    def __init__(self, temperature: float = 0.1, kd_temperature: float = 3.0, vcl: float = 0.1,
                 soft_vcl: float = 1.0, icl: float = 0.1, soft_icl: float = 1.0) -> None:
        super().__init__(temperature, kd_temperature, vcl, soft_vcl, icl, soft_icl)

    def forward(self, outputs: StageOutputs, labels: Tensor,
                indices: Tensor | None = None) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            outputs: of the auxiliary heads.
            labels: ``(B,)`` int64, the classes.
            indices: for :meth:`compared_with`, which needs none here.

        Returns:
            a scalar.

        Raises:
            InputError: there are fewer than two members, the embeddings are not of one shape
                ``(B, d)``, the labels are not ``(B,)``, the weights not ``(N, N, B)``, or logits
                differ in shape.
        """
        _check_outputs(outputs, labels)
        heads = [logits for member in outputs.logits for logits in member[:-1]]
        return (self.layerwise(outputs, self.compared_with(labels, indices))
                + cross_entropies(heads, labels) + cross_entropies(outputs.aggregated, labels)
                + self._imitation(outputs))

    def compared_with(self, labels: Tensor, indices: Tensor | None) -> Tensor:
        """Return what :meth:`layerwise` has to know of a batch: here the labels.

        Args:
            labels: ``(B,)`` int64.
            indices: ``(B,)`` int64, the images' numbers in the training set.
        """
        return labels

    def layerwise(self, outputs: StageOutputs, compared: Tensor,
                  imitated: Sequence[Sequence[Tensor]] | None = None) -> Tensor:
        """Compute ``L_MCL`` alone, a scalar.

        Args:
            outputs: of the auxiliary heads.
            compared: from :meth:`compared_with`.
            imitated: the embeddings whose distributions are imitated; None for the outputs' own,
                without gradient.
        """
        n, m = _pairs_of_stages(outputs.embeddings).to(compared.device)
        temperature = self.kd_temperature
        with torch.autocast(device_type=compared.device.type, enabled=False):
            within, between = self._similarities(outputs.embeddings, compared)
            theirs = ((within.detach(), between.detach()) if imitated is None else
                      self._similarities(imitated, compared))
            each = (self.vcl * self._contrast(within, compared)[n]
                    + self.icl * self._contrast(between[n, m], compared)
                    + self.soft_vcl * mimicry(within[n], theirs[0][m], temperature)
                    + self.soft_icl * mimicry(between[n, m], theirs[1][m, n], temperature))
            return 2 * (at_least_float32(outputs.weights)[n, m] * each).mean(1).sum()

    def _similarities(self, members: Sequence[Sequence[Tensor]], compared: Tensor
                      ) -> tuple[Tensor, Tensor]:
        """Return ``S_nn``, ``(N, B, ...)``, and ``S_nm``, ``(N, N, B, ...)``."""
        between = similarities([embedding for member in members for embedding in member],
                               self.temperature)
        return between.diagonal().permute(2, 0, 1), between

    def _contrast(self, similarity: Tensor, compared: Tensor) -> Tensor:
        """Return ``C_i``, ``(..., B)``."""
        return contrast(similarity, compared)

    def _imitation(self, outputs: StageOutputs) -> Tensor:
        """``sum_{a,b} KL_T(z_a || z~_b)``."""
        return self.kd_temperature ** 2 * sum(
            kl_divergence(*scaled_logits(member[-1], together, self.kd_temperature))
            for member, together in product(outputs.logits, outputs.aggregated))


def cross_entropies(logits: Iterable[Tensor], labels: Tensor) -> Tensor:
    """Return the sum of the mean cross-entropies of several logits ``(B, C)``, a scalar."""
    losses = [F.cross_entropy(at_least_float32(z), labels) for z in logits]
    return torch.stack(losses).sum() if losses else torch.zeros((), device=labels.device)


def _check_outputs(outputs: StageOutputs, labels: Tensor) -> None:
    embeddings = [embedding for member in outputs.embeddings for embedding in member]
    check_embeddings(embeddings if len(outputs.embeddings) > 1 else embeddings[:1], labels)
    if outputs.weights.shape != (len(embeddings), len(embeddings), len(labels)):
        raise InputError(f'weights of shape {tuple(outputs.weights.shape)} do not belong to '
                         f'{len(embeddings)} embeddings of {len(labels)} images')


def _pairs_of_stages(members: Sequence[Sequence[Tensor]]) -> Tensor:
    """Return ``(2, P)`` int64: the ordered pairs of stages of different members."""
    owner = torch.tensor([a for a, stages in enumerate(members) for _ in stages])
    return (owner.unsqueeze(1) != owner).nonzero().T
