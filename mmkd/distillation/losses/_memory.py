"""Memory banks: an embedding of every training sample, and with which of them one is compared."""

import math

import torch
from torch import Tensor, nn

from mmkd.distillation.losses._distributed import gather_rows
from mmkd.distillation.losses._errors import InputError
from mmkd.distillation.losses._features import unit

__all__ = ['SamplesByClass', 'initial_bank', 'updated_rows']


class SamplesByClass(nn.Module):
    """Draws training samples of the class of others, or of all other classes.

    Args:
        labels: ``(M,)`` int64, the class of every training sample.
        loss: name of the loss that asks.

    Raises:
        InputError: the labels are not ``(M,)``, or all equal.
    """

    def __init__(self, labels: Tensor, loss: str) -> None:
        super().__init__()
        labels = torch.as_tensor(labels)
        if labels.dim() != 1 or labels.is_floating_point() or len(labels.unique()) < 2:
            raise InputError(f'{loss} needs the class of every training sample, of two classes at '
                             f'least, and got {len(labels.unique())} in labels of shape '
                             f'{tuple(labels.shape)}: without another class there are no negatives')
        # Samples sorted by class: those of other classes are all but one run of them.
        _, classes, counts = labels.unique(return_inverse=True, return_counts=True)
        self.register_buffer('class_of', classes, persistent=False)
        self.register_buffer('count', counts, persistent=False)
        self.register_buffer('start', counts.cumsum(0) - counts, persistent=False)
        self.register_buffer('sorted', classes.argsort(stable=True), persistent=False)

    def of_the_same(self, indices: Tensor, number: int) -> Tensor:
        """Draw ``(B, number)`` samples of the class of each of ``indices`` ``(B,)``."""
        own = self.class_of[indices].unsqueeze(1)
        return self.sorted[self.start[own] + self._draw(number, self.count[own])]

    def of_others(self, indices: Tensor, number: int) -> Tensor:
        """Draw ``(B, number)`` samples of other classes than each of ``indices`` ``(B,)``."""
        own = self.class_of[indices].unsqueeze(1)
        place = self._draw(number, len(self.sorted) - self.count[own])
        return self.sorted[place + self.count[own] * (place >= self.start[own])]

    @staticmethod
    def _draw(number: int, below: Tensor) -> Tensor:
        return torch.randint(2 ** 62, (len(below), number), device=below.device) % below


def initial_bank(*shape: int) -> Tensor:
    """Return random embeddings ``(..., D)`` of about length 1, the same on every process."""
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return (2 * noise - 1) * math.sqrt(3 / shape[-1])


@torch.no_grad()
def updated_rows(bank: Tensor, embeddings: Tensor, everyone: Tensor, momentum: float) -> Tensor:
    """Return ``unit(momentum m_i + (1 - momentum) e_i)`` of the samples of all processes.

    Args:
        bank: ``(M, D)``, ``m``.
        embeddings: ``(B, D)``, ``e`` of this process's samples.
        everyone: ``(sum of all B,)`` int64, the samples' numbers; of one that occurs twice the
            first counts, on every process.
        momentum: between 0 and 1.
    """
    rows = momentum * bank[everyone] + (1 - momentum) * gather_rows(embeddings)[0]
    first = (everyone.unsqueeze(1) == everyone).byte().argmax(dim=1)
    return unit(rows, dim=1)[first].to(bank.dtype)
