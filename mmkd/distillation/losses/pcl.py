"""Peers that learn from their ensemble and from each other's moving averages."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmkd.distillation.losses._cohort import check_labels, checked_logits, imitation, others
from mmkd.distillation.losses._errors import InputError, check_temperature
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['PCLLoss']


class PCLLoss(nn.Module):
    r"""Peer collaborative learning: a peer ensemble teacher and peer mean teachers.

    ``L = CE(z_e, y) + r sum_{i=1}^{m} T^2 [ KL(p_e || p_i)
    + 1 / (m - 1) sum_{j != i} KL(q_j || p_i) ]``, ``p = softmax(z / T)``, summed over classes,
    averaged over the batch

    with the logits ``z_e`` of a classifier on all peers' embeddings, the predictions ``q_j`` of
    the moving average of peer ``j``, and the warm-up ``r``. The cross-entropy of the ensemble
    trains its classifier and all peers; ``p_e`` and ``q_j`` are constants in the divergences.

    Use it with :class:`~mmkd.online.branches.PeerEnsemble` and a mean teacher,
    ``teachers=dict(mean=dict(ema=0.999))``.

    Source: G. Wu, S. Gong, "Peer Collaborative Learning for Online Knowledge Distillation", AAAI
    2021, arXiv 2006.04147: three peers, ``T = 3``, moving averages at 0.999, every peer with an
    augmentation of its own, a Gaussian warm-up of the divergences over 80 epochs. There the
    peers are branches of one network; here they may be separate networks. It deploys the moving
    average of a peer: :class:`~mmkd.online.mean_members.MeanMembersHook` evaluates them, and
    :class:`~mmkd.online.checkpoints.MemberCheckpointHook` saves them.

    Args:
        temperature: ``T`` > 0.

    Raises:
        InputError: the temperature is not above 0.
    """

    multi_level = True

    def __init__(self, temperature: float = 3.0) -> None:
        super().__init__()
        check_temperature(temperature, 'PCLLoss')
        self.temperature = temperature

    def forward(self, student: tuple[Sequence[Tensor], Tensor], teacher: Sequence[Tensor],
                labels: Tensor, warmup: float = 1.0) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: every peer's logits, each ``(B, C)``, and those of the ensemble.
            teacher: the mean teachers' logits in the order of the peers; what comes before them
                (embeddings, which are tapped for the ensemble) is not looked at.
            labels: ``(B,)`` int64, the classes.
            warmup: ``r``.

        Returns:
            a scalar.

        Raises:
            InputError: there are fewer than two peers, or the shapes do not fit.
        """
        peers, ensemble = student
        checked = checked_logits([*peers, ensemble, *teacher[-len(peers):]], 'PCLLoss')
        peers, ensemble = checked_logits(peers, 'PCLLoss'), at_least_float32(ensemble)
        means = checked[len(peers) + 1:]
        if len(means) != len(peers):
            raise InputError(f'PCLLoss has {len(peers)} peers and {len(means)} mean teachers: tap '
                             'the same layers of both')
        check_labels(labels, ensemble, 'PCLLoss')
        divergences = [imitation(z, [ensemble.detach()], self.temperature)
                       + imitation(z, others(means, i), self.temperature)
                       for i, z in enumerate(peers)]
        return F.cross_entropy(ensemble, labels) + warmup * torch.stack(divergences).sum()
