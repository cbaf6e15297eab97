"""Branches that imitate their gated sum."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmkd.distillation.losses._cohort import check_labels, checked_logits, imitation
from mmkd.distillation.losses._errors import InputError, check_temperature
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['ONELoss']


class ONELoss(nn.Module):
    r"""On-the-fly native ensemble: a gate joins the branches, and each imitates the whole.

    ``L = CE(z_e, y) + r sum_{i=1}^{m} T^2 KL(p_e || p_i)``, ``z_e = sum_i g_i z_i``,
    ``p = softmax(z / T)``, summed over classes, averaged over the batch

    with the gate's weights ``g_i`` of each sample and the warm-up ``r``. The cross-entropy of the
    ensemble trains the gate and all branches; ``p_e`` is a constant in the divergences.

    Use it with :class:`~mmkd.online.branches.ONEBranches` (one network, as in the paper) or
    :class:`~mmkd.online.branches.CohortGate` (separate networks).

    Source: X. Lan, X. Zhu, S. Gong, "Knowledge Distillation by On-the-Fly Native Ensemble", NeurIPS
    2018, arXiv 1806.04606. As in its code, which has three branches and ``T = 3``, the warm-up
    (Gaussian, over 80 epochs) is for the divergences alone; that code adds 1e-7 to ``p_e``.

    Args:
        temperature: ``T`` > 0.
        auxiliary_ce: whether to add ``sum_{i >= 2} CE(z_i, y)``, for branches that are no member
            of a cohort, where each has its own. The first branch is the student.

    Raises:
        InputError: the temperature is not above 0.
    """

    multi_level = True

    def __init__(self, temperature: float = 3.0, auxiliary_ce: bool = False) -> None:
        super().__init__()
        check_temperature(temperature, 'ONELoss')
        self.temperature = temperature
        self.auxiliary_ce = auxiliary_ce

    def forward(self, student: tuple[Sequence[Tensor], Tensor], labels: Tensor,
                warmup: float = 1.0) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: every branch's logits, each ``(B, C)``, and the gate's weights, ``(B, m)``.
            labels: ``(B,)`` int64, the classes.
            warmup: ``r``.

        Returns:
            a scalar.

        Raises:
            InputError: there are fewer than two branches, or the shapes do not fit.
        """
        logits = checked_logits(student[0], 'ONELoss')
        gate = at_least_float32(student[1])
        check_labels(labels, logits[0], 'ONELoss')
        if gate.shape != (len(labels), len(logits)):
            raise InputError(f'ONELoss needs a weight for each sample and branch, shape '
                             f'{(len(labels), len(logits))}, and got {tuple(gate.shape)}: give the '
                             "term connector=dict(type='ONEBranches') or 'CohortGate'")
        ensemble = (gate.t().unsqueeze(2) * torch.stack(logits)).sum(0)
        loss = F.cross_entropy(ensemble, labels)
        if self.auxiliary_ce:
            loss = loss + sum(F.cross_entropy(z, labels) for z in logits[1:])
        return loss + warmup * sum(imitation(z, [ensemble.detach()], self.temperature)
                                   for z in logits)
