"""Networks that learn together whom to be close to in an embedding space."""

from collections.abc import Sequence
from itertools import permutations

import torch
from torch import Tensor, nn

from mmkd.distillation.losses._errors import InputError, check_temperature
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['MCLLoss', 'contrast', 'mimicry', 'similarities']


class MCLLoss(nn.Module):
    r"""Mutual contrastive learning: what each member's embeddings contrast, and what others see.

    With the normalised embeddings ``v_a`` ``(B, d)`` of member ``a``, ``S_ab = v_a v_b^T / tau``,

    ``C(S) = -1/B sum_i 1/|P(i)| sum_{p in P(i)} log [ exp(S_ip) / sum_{j != i} exp(S_ij) ]``,
    ``P(i) = {p != i : y_p = y_i}``, and
    ``K(S, S') = T^2 / B sum_i KL( softmax(S'_i / T) || softmax(S_i / T) )`` with ``S'`` constant,

    ``L = alpha sum_a C(S_aa) + beta sum_{a != b} C(S_ab)
    + gamma sum_{a != b} K(S_aa, S_bb) + lambda sum_{a != b} K(S_ab, S_ba)``

    over all ordered pairs: vanilla (VCL) and interactive (ICL) contrastive learning, and their
    soft forms, by which members imitate each other's contrastive distributions. An image without
    another one of its class in the batch counts 0 in ``C``, whose mean is over all ``B`` images. In
    a process group the batch is that of this process.

    Source: C. Yang, Z. An, L. Cai, Y. Xu, "Mutual Contrastive Learning for Visual Representation
    Learning", AAAI 2022, arXiv 2104.12565; numbers and details as in the authors' code for
    CIFAR-100, which has ``tau`` 0.1 since February 2022 and had 0.07 before; for ImageNet it is
    0.07, and contrasts with a memory bank, which here
    :class:`~mmkd.distillation.losses.LMCLMemoryLoss` alone has. The paper writes ``C`` for one
    positive, the code takes the mean over all of the class; the image itself, seen by the other
    member, is neither positive nor negative in ``C(S_ab)``, yet ``K`` is taken over full rows,
    with it. The code gives NaN for an image without a positive; its batches have two images of
    every class.

    Use it with :class:`~mmkd.online.heads.ContrastiveHeads`.

    Args:
        temperature: ``tau`` > 0.
        kd_temperature: ``T`` > 0.
        vcl: ``alpha``.
        soft_vcl: ``gamma``.
        icl: ``beta``.
        soft_icl: ``lambda``.

    Raises:
        InputError: a temperature is not above 0.
    """

    multi_level = True

    def __init__(self, temperature: float = 0.1, kd_temperature: float = 3.0, vcl: float = 0.1,
                 soft_vcl: float = 1.0, icl: float = 0.1, soft_icl: float = 1.0) -> None:
        super().__init__()
        check_temperature(temperature, type(self).__name__)
        check_temperature(kd_temperature, type(self).__name__, 'kd_temperature')
        self.temperature = temperature
        self.kd_temperature = kd_temperature
        self.vcl = vcl
        self.soft_vcl = soft_vcl
        self.icl = icl
        self.soft_icl = soft_icl

    def forward(self, embeddings: Sequence[Tensor], labels: Tensor) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            embeddings: of each member, ``(B, d)``, rows of norm 1.
            labels: ``(B,)`` int64, the classes.

        Returns:
            a scalar.

        Raises:
            InputError: there are fewer than two members, their embeddings are not of one shape
                ``(B, d)``, or the labels are not ``(B,)``.
        """
        check_embeddings(embeddings, labels)
        pairs = list(permutations(range(len(embeddings)), 2))
        a, b = torch.tensor(pairs, device=labels.device).T
        with torch.autocast(device_type=labels.device.type, enabled=False):
            between = similarities(embeddings, self.temperature)
            within = between.diagonal().permute(2, 0, 1)
            parts = (self.vcl * contrast(within, labels).sum(0)
                     + self.icl * contrast(between[a, b], labels).sum(0)
                     + self.soft_vcl * mimicry(within[a], within[b].detach(),
                                               self.kd_temperature).sum(0)
                     + self.soft_icl * mimicry(between[a, b], between[b, a].detach(),
                                               self.kd_temperature).sum(0))
        return parts.mean()


def similarities(embeddings: Sequence[Tensor], temperature: float) -> Tensor:
    """Return ``S[n, m, i, j] = v_n[i] . v_m[j] / temperature`` of ``N`` embeddings ``(B, d)``.

    ``(N, N, B, B)``, in float32 at least. Autocast must be off.
    """
    vectors = torch.stack([at_least_float32(embedding) for embedding in embeddings])
    return torch.einsum('nid,mjd->nmij', vectors, vectors) / temperature


def contrast(similarity: Tensor, labels: Tensor) -> Tensor:
    """Return of each image how unlike it is to those of its class, and how like to the others.

    ``-1/|P(i)| sum_{p in P(i)} log [ exp(S_ip) / sum_{j != i} exp(S_ij) ]``,
    ``P(i) = {p != i : y_p = y_i}``; 0 where ``P(i)`` is empty.

    Args:
        similarity: ``(..., B, B)``.
        labels: ``(B,)``.

    Returns:
        ``(..., B)``.
    """
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    positives = (labels.unsqueeze(1) == labels) & ~itself
    others = similarity.masked_fill(itself, torch.finfo(similarity.dtype).min)
    log_p = similarity - others.logsumexp(-1, keepdim=True)
    return -(log_p * positives).sum(-1) / positives.sum(-1).clamp(min=1)


def mimicry(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return ``T^2 KL( softmax(teacher / T) || softmax(student / T) )`` of every row.

    Args:
        student: ``(..., B, B)``.
        teacher: the same shape, detached where it is to get no gradient.
        temperature: ``T`` > 0.

    Returns:
        ``(..., B)``.
    """
    log_p = torch.log_softmax(student / temperature, dim=-1)
    log_q = torch.log_softmax(teacher / temperature, dim=-1)
    return temperature ** 2 * (log_q.exp() * (log_q - log_p)).sum(-1)


def check_embeddings(embeddings: Sequence[Tensor], labels: Tensor) -> None:
    """Raise ValueError unless there are several embeddings of one shape ``(B, d)``, and labels."""
    if len(embeddings) < 2:
        raise InputError(f'mutual contrastive learning needs the embeddings of at least two '
                         f'networks, not {len(embeddings)}: tap every member of a cohort '
                         "(tap='members.*.backbone.embedding')")
    first = embeddings[0]
    for other in embeddings:
        if other.shape != first.shape or other.dim() != 2:
            raise InputError(f'embeddings of shape {tuple(first.shape)} and {tuple(other.shape)} '
                             'cannot be contrasted: both must be (batch, dimensions), of one size, '
                             "as connector=dict(type='ContrastiveHeads') makes them")
    if labels.shape != first.shape[:1]:
        raise InputError(f'embeddings of shape {tuple(first.shape)} and labels of shape '
                         f'{tuple(labels.shape)} do not belong together: give one label per sample')
