"""Everyone imitates everyone else."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmkd.distillation.losses._cohort import checked_logits, imitation, others
from mmkd.distillation.losses._errors import check_temperature

__all__ = ['DMLLoss']


class DMLLoss(nn.Module):
    r"""Deep mutual learning: each of ``M`` members imitates the predictions of the others.

    ``L = sum_i 1 / (M - 1) sum_{j != i} T^2 KL(p_j || p_i)``, ``p_i = softmax(z_i / T)``, summed
    over classes, averaged over the batch. ``p_j`` is a constant in ``KL(p_j || p_i)``.

    Source: Y. Zhang, T. Xiang, T. Hospedales, H. Lu, "Deep Mutual Learning", CVPR 2018, arXiv
    1706.00384, with ``T = 1``. There the members are updated one after the other, each against
    predictions made anew; here all at once, from one forward pass, as is usual.

    Args:
        temperature: ``T`` > 0.

    Raises:
        InputError: the temperature is not above 0.
    """

    multi_level = True

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        check_temperature(temperature, 'DMLLoss')
        self.temperature = temperature

    def forward(self, student: Sequence[Tensor]) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: every member's logits, each ``(B, C)``.

        Returns:
            a scalar.

        Raises:
            InputError: there are fewer than two members, or the shapes differ.
        """
        logits = checked_logits(student, 'DMLLoss')
        return torch.stack([imitation(z, others(logits, i), self.temperature)
                            for i, z in enumerate(logits)]).sum()
