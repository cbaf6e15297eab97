"""What online methods train beside their networks: gates, branches, attention, ensembles.

Connectors of terms of :class:`~mmkd.distillation.SelfTerm`; all of them are ``multi_level``.
Those of cohorts take the embeddings of all members and then their logits::

    tap=['members.*.backbone.embedding', 'members.*.head.fc']
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmkd.classification.networks.tail import Tail
from mmkd.distillation.losses._precision import at_least_float32
from mmkd.errors import UserError
from mmkd.registry import MODELS

__all__ = ['CohortGate', 'ONEBranches', 'PeerAttention', 'PeerEnsemble']


class _Gate(nn.Sequential):
    """Weights of each sample: linear, batch norm, ReLU, softmax; ``(B, D) -> (B, m)``."""

    def __init__(self, channels: int, branches: int) -> None:
        super().__init__(nn.Linear(channels, branches), nn.BatchNorm1d(branches), nn.ReLU(),
                         nn.Softmax(dim=1))

    def forward(self, embedding: Tensor) -> Tensor:
        """Compute the weights, each row summing to 1.

        Raises:
            UserError: a training batch of one sample has nothing to normalise over.
        """
        if self.training and len(embedding) == 1:
            raise UserError("a batch of one sample is too small for ONE's gate, which normalises "
                            'over the batch: use a larger batch, and drop_last for the rest')
        return super().forward(embedding)


@MODELS.register_module()
class ONEBranches(nn.Module):
    r"""Branches of one network behind its last stage but one, and the gate that joins them.

    The student is the first branch; the others are copies of its part behind that stage, of their
    own weights (:class:`~mmkd.classification.networks.tail.Tail`), fed with the same feature ``f``.
    ``g = softmax(relu(bn(W pool(f))))``, one weight for each branch.

    Tap the stages and the logits: ``tap=['backbone.stage?', 'head.fc']``.

    Source: see :class:`~mmkd.distillation.losses.ONELoss`; the gate as in the authors' code.

    Args:
        student_model: the network, a :class:`~mmkd.classification.Classifier`.
        student_channels: channels of what is tapped.
        num_branches: ``m`` >= 2, the student included.

    Raises:
        UserError: there are fewer than two branches, or not the stages and the logits are tapped.
    """

    multi_level = True

    def __init__(self, student_model: nn.Module, student_channels: Sequence[int],
                 num_branches: int = 3) -> None:
        super().__init__()
        stages = student_model.backbone.num_stages
        if num_branches < 2:
            raise UserError(f'ONEBranches has num_branches={num_branches}, the student included: '
                            'give 2 at least')
        if stages < 2 or len(student_channels) != stages + 1:
            raise UserError(f'ONEBranches needs all {stages} stages of the network, two at least, '
                            f'and its logits, and {len(student_channels)} layers are tapped: write '
                            "tap=['backbone.stage?', 'head.fc']")
        self.tails = nn.ModuleList(Tail(student_model, stages - 1)
                                   for _ in range(num_branches - 1))
        self.gate = _Gate(student_channels[-3], num_branches)

    def forward(self, student: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Run the branches and the gate.

        Args:
            student: the stages' outputs, ``(B, C, H, W)``, and the logits, ``(B, num_classes)``.

        Returns:
            the logits of all branches, the student's first, and the weights, ``(B, m)``.
        """
        feature, logits = student[-3], student[-1]
        branches = [logits, *(tail(feature)[1] for tail in self.tails)]
        return branches, self.gate(feature.mean((2, 3)))


@MODELS.register_module()
class CohortGate(nn.Module):
    r"""The gate of ONE for separate networks, ``g = softmax(relu(bn(W [h_1, ..., h_M])))``.

    The branches of ONE share the feature that its gate looks at. Members of a cohort share
    nothing, so this gate looks at the embeddings ``h_i`` of all of them.

    Source: see :class:`~mmkd.distillation.losses.ONELoss`.

    Args:
        student_channels: dimensions of all members' embeddings, then of their logits.

    Raises:
        UserError: not the embeddings and the logits of at least two members are tapped.
    """

    multi_level = True

    def __init__(self, student_channels: Sequence[int]) -> None:
        super().__init__()
        sizes, _ = _split(self, student_channels)
        self.gate = _Gate(sum(sizes), len(sizes))

    def forward(self, student: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Return the members' logits as they are, and their weights, ``(B, M)``.

        Args:
            student: embeddings ``(B, D_i)``, then logits ``(B, num_classes)``.
        """
        embeddings, logits = _split(self, student)
        return logits, self.gate(torch.cat(embeddings, dim=1))


@MODELS.register_module()
class PeerAttention(nn.Module):
    r"""How much each auxiliary peer of OKDDip heeds each.

    ``alpha_ab = exp(L(h_a) . E(h_b)) / sum_f exp(L(h_a) . E(h_f))`` of each sample, with linear
    maps ``L`` and ``E`` without bias from the embeddings ``h`` of the peers ``1 .. m - 1`` into
    ``min_i D_i // reduction`` dimensions. All peers whose embeddings are of one size have the same
    two maps, as in the paper; each other size has two of its own. The last member, the
    leader, takes no part.

    Source: see :class:`~mmkd.distillation.losses.OKDDipLoss`, of whose two forms, branches of one
    network and separate networks, this is the second; ``reduction`` as in the authors' code.

    Args:
        student_channels: dimensions of all members' embeddings, then of their logits.
        reduction: how much smaller the common space is.

    Raises:
        UserError: not the embeddings and the logits of at least two members are tapped.
    """

    multi_level = True

    def __init__(self, student_channels: Sequence[int], reduction: int = 8) -> None:
        super().__init__()
        sizes = _split(self, student_channels)[0][:-1]
        dim = max(min(sizes) // reduction, 1)
        self.queries, self.keys = (
            nn.ModuleDict({str(size): nn.Linear(size, dim, bias=False) for size in sizes})
            for _ in 'LE')

    def forward(self, student: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Return the members' logits as they are, and the attention, ``(B, m - 1, m - 1)``.

        Args:
            student: embeddings ``(B, D_i)``, then logits ``(B, num_classes)``.
        """
        embeddings, logits = _split(self, student)
        with torch.autocast(logits[0].device.type, enabled=False):
            peers = [at_least_float32(h) for h in embeddings[:-1]]
            queries, keys = (torch.stack([maps[str(h.shape[1])](h) for h in peers], dim=1)
                             for maps in (self.queries, self.keys))
            return logits, (queries @ keys.mT).softmax(dim=2)


@MODELS.register_module()
class PeerEnsemble(nn.Module):
    """The peer ensemble teacher of PCL: a linear classifier on all peers' embeddings.

    Source: see :class:`~mmkd.distillation.losses.PCLLoss`.

    Args:
        student_channels: dimensions of all members' embeddings, then of their logits.

    Raises:
        UserError: not the embeddings and the logits of at least two members are tapped.
    """

    multi_level = True

    def __init__(self, student_channels: Sequence[int]) -> None:
        super().__init__()
        sizes, classes = _split(self, student_channels)
        self.fc = nn.Linear(sum(sizes), classes[0])

    def forward(self, student: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Return the members' logits as they are, and the ensemble's, ``(B, num_classes)``.

        Args:
            student: embeddings ``(B, D_i)``, then logits ``(B, num_classes)``.
        """
        embeddings, logits = _split(self, student)
        return logits, self.fc(torch.cat(embeddings, dim=1))


def _split(connector: nn.Module, values: Sequence) -> tuple[list, list]:
    """Tell what belongs to the embeddings from what belongs to the logits, one each per member."""
    members, rest = divmod(len(values), 2)
    if rest or members < 2:
        raise UserError(f'{type(connector).__name__} needs the embedding and the logits of two '
                        f'members at least, and {len(values)} layers are tapped: write '
                        "tap=['members.*.backbone.embedding', 'members.*.head.fc']")
    return list(values[:members]), list(values[members:])
