"""Peers with targets of their own, and a leader."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmkd.distillation.losses._cohort import check_temperature, checked_logits, imitation
from mmkd.distillation.losses._errors import InputError
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['OKDDipLoss']


class OKDDipLoss(nn.Module):
    r"""Two-level distillation: among auxiliary peers by attention, and from them to the leader.

    ``L = sum_{a=1}^{m-1} T^2 KL(t_a || p_a) + T^2 KL(t_m || p_m)``, ``p = softmax(z / T)``,
    ``t_a = softmax(sum_{b=1}^{m-1} alpha_ab z_b / T)``,
    ``t_m = softmax(1 / (m - 1) sum_{a=1}^{m-1} z_a / T)``, summed over classes, averaged over the
    batch

    with the attention ``alpha`` of each sample among the peers, the peer itself included. Member
    ``m``, the last, leads: it learns from all and teaches nobody. The logits in the targets are
    constants; the weights ``alpha`` are not, since nothing else trains the attention.

    Use it with :class:`~mmkd.online.branches.PeerAttention`.

    Source: D. Chen, J.-P. Mei, C. Wang, Y. Feng, C. Chen, "Online Knowledge Distillation with
    Diverse Peers", AAAI 2020, arXiv 1912.00350. Its code has four members, ``T = 3`` and a Gaussian
    warm-up of both divergences over 80 epochs, and mixes logits, where the paper mixes softened
    probabilities; it also lets the gradient of every target reach the logits in it.

    Args:
        temperature: ``T`` > 0.

    Raises:
        InputError: the temperature is not above 0.
    """

    multi_level = True

    def __init__(self, temperature: float = 3.0) -> None:
        super().__init__()
        check_temperature(temperature, 'OKDDipLoss')
        self.temperature = temperature

    def forward(self, student: tuple[Sequence[Tensor], Tensor]) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: every member's logits, each ``(B, C)``, the leader's last, and the attention,
                ``(B, m - 1, m - 1)``, each row of weights summing to 1.

        Returns:
            a scalar.

        Raises:
            InputError: there are fewer than two members, or the shapes do not fit.
        """
        *peers, leader = checked_logits(student[0], 'OKDDipLoss')
        attention = at_least_float32(student[1])
        expected = (len(leader), len(peers), len(peers))
        if attention.shape != expected:
            raise InputError(f'OKDDipLoss needs the attention of each peer to each, shape '
                             f'{expected}, and got {tuple(attention.shape)}: give the term '
                             "connector=dict(type='PeerAttention')")
        known = torch.stack(peers).detach()
        with torch.autocast(leader.device.type, enabled=False):
            targets = torch.einsum('bpq,qbc->pbc', attention, known)
        terms = [imitation(z, [t], self.temperature) for z, t in zip(peers, targets, strict=True)]
        return torch.stack([*terms, imitation(leader, [known.mean(0)], self.temperature)]).sum()
