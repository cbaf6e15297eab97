"""Auxiliary heads of the members of a cohort: trained with them, not deployed with them."""

from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor, nn

from mmkd.classification.networks.tail import Tail
from mmkd.distillation.losses._features import unit
from mmkd.distillation.losses._precision import at_least_float32
from mmkd.distillation.losses.l_mcl import StageOutputs
from mmkd.errors import UserError
from mmkd.online.matching import LayerMatching
from mmkd.registry import MODELS

__all__ = ['ContrastiveHead', 'ContrastiveHeads', 'LayerwiseHeads', 'StageAggregator']


class ContrastiveHead(nn.Module):
    """``(B, C) -> (B, dim)``: linear, ReLU, linear, divided by the L2 norm.

    Args:
        channels: ``C``.
        dim: of the embedding, and of the layer before.
    """

    def __init__(self, channels: int, dim: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(channels, dim), nn.ReLU(), nn.Linear(dim, dim))

    def forward(self, feature: Tensor) -> Tensor:
        """Embed ``(B, C)`` on the unit sphere, in float32 at least."""
        return unit(at_least_float32(self.layers(feature)), dim=1)


@MODELS.register_module()
class ContrastiveHeads(nn.Module):
    """A :class:`ContrastiveHead` for each member of a cohort; see
    :class:`~mmkd.distillation.losses.MCLLoss`.

    Args:
        student_channels: of each member's feature.
        dim: of the embeddings.
    """

    multi_level = True

    def __init__(self, student_channels: Sequence[int], dim: int = 128) -> None:
        super().__init__()
        self.heads = nn.ModuleList(ContrastiveHead(channels, dim) for channels in student_channels)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Embed the members' features ``(B, C)`` as ``(B, dim)``, rows of norm 1.

        Raises:
            UserError: a feature is not ``(B, C)``.
        """
        for feature in features:
            if feature.dim() != 2:
                raise UserError('ContrastiveHeads takes features (batch, channels), not '
                                f'{tuple(feature.shape)}: tap embeddings '
                                "(tap='members.*.backbone.embedding')")
        return [head(feature) for head, feature in zip(self.heads, features, strict=True)]


class StageAggregator(nn.Module):
    """One prediction of all stages: ``z~ = sum_k p_k z^k``, ``p`` of each image its own.

    ``p = softmax(W_2 ReLU(W_1 [h^1 .. h^L]))`` of the stages' embeddings ``h``.

    Args:
        channels: of each stage's embedding.
        stages: ``L``.
    """

    def __init__(self, channels: int, stages: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(stages * channels, channels), nn.ReLU(),
                                    nn.Linear(channels, stages))

    def forward(self, embeddings: Sequence[Tensor], logits: Sequence[Tensor]) -> Tensor:
        """Join logits ``(B, classes)`` by embeddings ``(B, C)``, as many of each as stages."""
        shares = at_least_float32(self.layers(torch.cat(list(embeddings), dim=1))).softmax(1)
        return (shares.unsqueeze(2) * torch.stack(list(logits), dim=1)).sum(1)


@MODELS.register_module()
class LayerwiseHeads(nn.Module):
    """What layer-wise MCL hangs on the stages of a cohort; see
    :class:`~mmkd.distillation.losses.LMCLLoss`.

    * Each stage but the last of each member gets a *feature aggregation module* with a classifier:
      a copy of the member's later stages, drawn anew (:class:`Tail`). The last stage's embedding
      and logits are the member's own.
    * Each embedding gets a :class:`ContrastiveHead`, each member a :class:`StageAggregator`.
    * A :class:`LayerMatching` weighs the pairs of stages. Its parameters are no part of the
      gradient descent (``requires_grad`` is off): :class:`~mmkd.online.meta.MetaOptimizeHook`
      trains them.

    Taps, in this order: ``members.*.backbone.stage?``, ``members.*.backbone.embedding``,
    ``members.*.head.fc``.

    Source: C. Yang et al., TPAMI 45(8), 2023, arXiv 2207.11518, and the authors' code. Initial
    weights are drawn as those of the networks here are, which is not quite as theirs.

    Args:
        student_model: the cohort; copied from, not kept.
        dim: of the embeddings and of the space where stages are matched.

    Raises:
        UserError: the model is no cohort.
    """

    multi_level = True

    def __init__(self, student_model: nn.Module, dim: int = 128) -> None:
        super().__init__()
        if not hasattr(student_model, 'members'):
            raise UserError(f'LayerwiseHeads needs a Cohort, not a {type(student_model).__name__}')
        members = list(student_model.members.values())
        self.stages = [member.backbone.num_stages for member in members]
        widths = [member.backbone.out_channels for member in members]
        sizes = list(zip(widths, self.stages, strict=True))
        self.tails = nn.ModuleList(
            nn.ModuleList(Tail(member, stage) for stage in range(1, count))
            for member, count in zip(members, self.stages, strict=True))
        self.heads = nn.ModuleList(
            nn.ModuleList(ContrastiveHead(width, dim) for _ in range(count))
            for width, count in sizes)
        self.aggregators = nn.ModuleList(StageAggregator(*size) for size in sizes)
        self.matching = LayerMatching([width for width, count in sizes for _ in range(count)], dim)
        self.matching.requires_grad_(False)

    def forward(self, taps: Sequence[Tensor], learn_matching: bool = False) -> StageOutputs:
        """Embed and classify at every stage.

        Args:
            taps: all stages ``(B, C, H, W)`` of the first member, of the second ...; all
                embeddings ``(B, D)``; all logits ``(B, classes)``.
            learn_matching: let gradients flow through the weights of the pairs, both into the
                meta-network and, as in the authors' code, into the embeddings.

        Raises:
            UserError: there are not as many taps as that.
        """
        embeddings, logits = self._embed(taps)
        with torch.set_grad_enabled(learn_matching and torch.is_grad_enabled()):
            weights = self.matching([h for member in embeddings for h in member])
        return StageOutputs(
            [[head(h) for head, h in zip(heads, member, strict=True)]
             for heads, member in zip(self.heads, embeddings, strict=True)],
            logits,
            [join(h, z) for join, h, z in zip(self.aggregators, embeddings, logits, strict=True)],
            weights)

    def _embed(self, taps: Sequence[Tensor]) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
        """Return embeddings and logits, by member and stage."""
        if len(taps) != sum(self.stages) + 2 * len(self.stages):
            raise UserError(
                f'LayerwiseHeads got {len(taps)} taps of {len(self.stages)} members with '
                f"{sum(self.stages)} stages: give tap=['members.*.backbone.stage?', "
                "'members.*.backbone.embedding', 'members.*.head.fc']")
        rest = iter(taps)
        features = [list(islice(rest, count)) for count in self.stages]
        own = [list(islice(rest, len(self.stages))) for _ in ('embedding', 'logits')]
        embeddings, logits = [], []
        for tails, maps, *last in zip(self.tails, features, *own, strict=True):
            outputs = [tail(feature) for tail, feature in zip(tails, maps, strict=False)]
            outputs.append(tuple(last))
            embeddings.append([h for h, _ in outputs])
            logits.append([z for _, z in outputs])
        return embeddings, logits
