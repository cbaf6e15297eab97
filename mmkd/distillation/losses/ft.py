"""A paraphrase of the teacher's feature, translated by the student."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmkd.distillation.losses._errors import InputError
from mmkd.distillation.losses._features import at_smaller_size, check_maps, unit
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['FTLoss']


class FTLoss(nn.Module):
    r"""Factor transfer: L1 distance of normalised factors, and the training of the paraphraser.

    ``L = mean (F^t - D(E(F^t)))^2 + r w mean | u(E(F^t)) - u(M(F^s)) |``

    with the paraphraser, an encoder ``E`` to ``k C_t`` channels, the *factor*, and a decoder ``D``;
    the student's translator ``M`` to as many channels; ``u``, the division of a sample's whole
    factor by its L2 norm; and the warm-up ``r``. The paraphraser learns to reconstruct the
    teacher's feature and nothing else: its factor is a constant in the second part, which trains
    translator and student. ``E``, ``D`` and ``M`` are three 3x3 convolutions (in ``D``
    transposed), each with a leaky ReLU of slope 0.1 behind it.

    Source: J. Kim, S. Park, N. Kwak, "Paraphrasing Complex Network: Network Compression via Factor
    Transfer", NeurIPS 2018, arXiv 1802.04977, with ``p = 1``. It trains the paraphraser first and
    keeps it then; here it learns through the whole training, and a Gaussian warm-up of
    30 epochs, the first stage's length in RepDistiller, holds the transfer back while it knows
    little. Networks and factors are those of the authors' code, which reconstructs by the L1
    distance and has ``w`` 500 on CIFAR-10. ``w`` 200 is RepDistiller's, which compares the mean
    squares over the channels of each cell in place of the factors, and puts batch norms into ``M``.
    Factors of different size: the larger is average-pooled to the smaller.

    Args:
        student_channels: ``C_s``.
        teacher_channels: ``C_t``.
        rate: ``k``, above 0.
        transfer_weight: ``w``.

    Raises:
        InputError: the rate leaves no channel.
    """

    def __init__(self, student_channels: int, teacher_channels: int, rate: float = 0.5,
                 transfer_weight: float = 200.0) -> None:
        super().__init__()
        factors = round(rate * teacher_channels)
        if factors < 1:
            raise InputError(f'FTLoss has rate {rate!r}, which leaves no channel of the '
                             f"teacher's {teacher_channels}: give 0.5, or another above 0")
        self.encoder = _coder(nn.Conv2d, teacher_channels, teacher_channels, factors, factors)
        self.decoder = _coder(nn.ConvTranspose2d, factors, factors, teacher_channels,
                              teacher_channels)
        self.translator = _coder(nn.Conv2d, student_channels, student_channels, factors, factors)
        self.transfer_weight = transfer_weight

    def forward(self, student: Tensor, teacher: Tensor, warmup: float = 1.0) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: ``(B, C_s, H, W)``.
            teacher: ``(B, C_t, H', W')``; gets no gradient.
            warmup: ``r``.

        Returns:
            a scalar.

        Raises:
            InputError: one is not four-dimensional, or the batches differ.
        """
        check_maps(student, teacher)
        with torch.autocast(device_type=student.device.type, enabled=False):
            student, teacher = at_least_float32(student), at_least_float32(teacher.detach())
            factor = self.encoder(teacher)
            reconstruction = F.mse_loss(self.decoder(factor), teacher)
            own, factor = at_smaller_size(self.translator(student), factor.detach())
            transfer = F.l1_loss(unit(own.flatten(1), dim=1), unit(factor.flatten(1), dim=1))
            return reconstruction + warmup * self.transfer_weight * transfer


def _coder(layer: type[nn.Module], *channels: int) -> nn.Sequential:
    """Layers from each number of channels to the next."""
    layers: list[nn.Module] = []
    for first, last in pairwise(channels):
        layers += [layer(first, last, 3, padding=1), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers)
