"""Layer-wise mutual contrastive learning with a memory of the whole training set."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmkd.distillation.losses._distributed import gather_rows
from mmkd.distillation.losses._errors import InputError
from mmkd.distillation.losses._memory import SamplesByClass, initial_bank, updated_rows
from mmkd.distillation.losses._precision import at_least_float32
from mmkd.distillation.losses.l_mcl import LMCLLoss, StageOutputs

__all__ = ['LMCLMemoryLoss']


class LMCLMemoryLoss(LMCLLoss):
    r"""Layer-wise mutual contrastive learning, its contrasts taken with memory banks.

    The formula of :class:`LMCLLoss`, in which an image is compared with a memory in place of its
    batch. Each member ``a`` has a bank ``M_a`` of an embedding of every training sample. For image
    ``i`` are drawn uniformly ``P`` samples of its class (itself may be among them) and ``N`` of
    other classes, the same for all members and stages. With ``c_i`` the image itself, those of its
    class and the others, in this order, ``v_n`` the embedding of stage ``n``, and ``a(m)`` the
    member that stage ``m`` belongs to,

    * ``S_nm,i = v_n,i . M_a(m)[c_i] / tau``, ``1 + P + N`` numbers, whose positives are the image
      itself and those of its class;
    * ``S_nn,i = v_n,i . M_a(n)[c_i] / tau`` without the image itself;
    * ``C_i(S) = -1/|P(i)| sum_{p in P(i)} log [ exp(S_ip) / sum_j exp(S_ij) ]``.

    After each batch ``M_a[i] <- unit(momentum M_a[i] + (1 - momentum) v_i)`` with the embedding of
    the last stage of member ``a``, without gradient. Processes gather these, so that all
    hold the same banks; the banks are in the ``state_dict``. They and the rows that a batch is
    compared with take ``A M d + A B (1 + P + N) d`` numbers, ``A`` being the number of members: 1.3
    and 2.1 GB for two members on ImageNet.

    Source: that of :class:`LMCLLoss`; numbers and details as in the authors' code for ImageNet.
    Two things differ. It compares both embeddings of a pair with the bank of the *first* member in
    the part ``S_nn``; here each is compared with its own member's, as in its formula and in
    the MCL authors' code. And its meta-optimisation changes the banks; here it changes nothing
    but the meta-network.

    Use it as :class:`LMCLLoss`; batches need no two images of a class.

    Args:
        student_model: the cohort, whose members are counted.
        sample_labels: ``(M,)`` int64, the class of every training sample.
        dim: ``d`` of the embeddings.
        num_negatives: ``N``.
        num_positives: ``P``.
        momentum: of the banks.
        temperature: ``tau`` > 0.
        kd_temperature: ``T`` > 0.
        vcl: ``alpha``.
        soft_vcl: ``gamma``.
        icl: ``beta``.
        soft_icl: ``lambda``.

    Raises:
        InputError: a temperature is not above 0, there are no positives or no negatives, the labels
            are not ``(M,)``, or all equal.
    """

    def __init__(self, student_model: nn.Module, sample_labels: Tensor, dim: int = 128,
                 num_negatives: int = 8192, num_positives: int = 1, momentum: float = 0.5,
                 temperature: float = 0.07, kd_temperature: float = 3.0, vcl: float = 0.01,
                 soft_vcl: float = 1.0, icl: float = 0.01, soft_icl: float = 1.0) -> None:
        super().__init__(temperature, kd_temperature, vcl, soft_vcl, icl, soft_icl)
        if num_negatives < 1 or num_positives < 1:
            raise InputError(f'LMCLMemoryLoss has num_negatives {num_negatives} and num_positives '
                             f'{num_positives}: give numbers of at least 1')
        self.samples = SamplesByClass(sample_labels, 'LMCLMemoryLoss')
        self.num_negatives, self.num_positives = num_negatives, num_positives
        self.momentum = momentum
        self.register_buffer('banks', initial_bank(len(student_model.members),
                                                   len(self.samples.sorted), dim))

    def forward(self, outputs: StageOutputs, labels: Tensor, indices: Tensor) -> Tensor:
        """Compute the loss, in float32 at least, and update the banks.

        Args:
            outputs: of the auxiliary heads.
            labels: ``(B,)`` int64, the classes.
            indices: ``(B,)`` int64, the images' numbers in the training set.

        Returns:
            a scalar.

        Raises:
            InputError: as :class:`LMCLLoss`, there is not one index per image, or the embeddings
                are not of the banks' members and dimensions.
        """
        last = [member[-1] for member in outputs.embeddings]
        banks = len(self.banks), self.banks.shape[2]
        if indices.shape != labels.shape or (len(last), last[0].shape[-1]) != banks:
            raise InputError(f'LMCLMemoryLoss was built for {banks[0]} members with embeddings of '
                             f'{banks[1]} dimensions, and got {len(last)} of {last[0].shape[-1]}, '
                             f'labels of shape {tuple(labels.shape)} and indices of shape '
                             f'{tuple(indices.shape)}: give loss and LayerwiseHeads the same dim, '
                             'and use data with labels and no mixing of images')
        loss = super().forward(outputs, labels, indices)
        everyone, _ = gather_rows(indices)
        for bank, embeddings in zip(self.banks, last, strict=True):
            # In place: what the backward pass needs is a copy.
            bank.index_copy_(0, everyone, updated_rows(bank, at_least_float32(embeddings),
                                                       everyone, self.momentum))
        return loss

    def compared_with(self, labels: Tensor, indices: Tensor | None) -> Tensor:
        """Draw ``M_a[c_i]`` for every member and image, ``(A, B, 1 + P + N, d)``."""
        drawn = [indices.unsqueeze(1), self.samples.of_the_same(indices, self.num_positives),
                 self.samples.of_others(indices, self.num_negatives)]
        return self.banks[:, torch.cat(drawn, dim=1)]

    def _similarities(self, members: Sequence[Sequence[Tensor]], compared: Tensor
                      ) -> tuple[Tensor, Tensor]:
        vectors = torch.stack([at_least_float32(e) for member in members for e in member])
        owner = torch.tensor([a for a, stages in enumerate(members) for _ in stages],
                             device=vectors.device)
        every = torch.einsum('nid,aikd->naik', vectors, compared.to(vectors.dtype))
        every = every / self.temperature
        return every[range(len(owner)), owner][..., 1:], every[:, owner]

    def _contrast(self, similarity: Tensor, compared: Tensor) -> Tensor:
        positives = similarity.shape[-1] - self.num_negatives
        return -similarity.log_softmax(-1)[..., :positives].mean(-1)
