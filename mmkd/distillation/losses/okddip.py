"""Peers with targets of their own, and a leader."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmkd.distillation.losses._cohort import checked_logits, imitation
from mmkd.distillation.losses._errors import InputError, check_temperature
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
    constants unless ``target_gradient`` is set; the weights ``alpha`` are not, since nothing else
    trains the attention.

    Use it with :class:`~mmkd.online.branches.PeerAttention`.

    Source: D. Chen, J.-P. Mei, C. Wang, Y. Feng, C. Chen, "Online Knowledge Distillation with
    Diverse Peers", AAAI 2020, arXiv 1912.00350. As in its code, targets are the softmax of mixed
    logits; that has four members, ``T = 3``, a Gaussian warm-up of both divergences over 80 epochs,
    and adds 1e-7 to the targets.

    Args:
        temperature: ``T`` > 0.
        target_gradient: whether the gradient of each divergence also reaches the peers' logits in
            its target, as in the authors' code, where nothing is detached. Off by default, as in
            all losses here: with it a target moves towards who imitates it, so that peers learn
            from the leader, too.

    Raises:
        InputError: the temperature is not above 0.
    """

    multi_level = True

    def __init__(self, temperature: float = 3.0, target_gradient: bool = False) -> None:
        super().__init__()
        check_temperature(temperature, 'OKDDipLoss')
        self.temperature = temperature
        self.target_gradient = target_gradient

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
        known = torch.stack(peers)
        if not self.target_gradient:
            known = known.detach()
        with torch.autocast(leader.device.type, enabled=False):
            targets = torch.einsum('bpq,qbc->pbc', attention, known)
        terms = [imitation(z, [t], self.temperature) for z, t in zip(peers, targets, strict=True)]
        return torch.stack([*terms, imitation(leader, [known.mean(0)], self.temperature)]).sum()
