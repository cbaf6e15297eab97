"""The meta-network: which stages of two networks should learn from each other."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmkd.distillation.losses._features import unit
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['LayerMatching']


class LayerMatching(nn.Module):
    r"""Weights of all pairs of stages, image by image.

    ``w^nm_i = sigmoid( cos( P_n h^n_i, P_m h^m_i ) )`` with ``h^n`` the embedding of stage ``n``
    and ``P_n`` a linear layer of its own. By symmetry ``w^nm = w^mn``.

    Source: C. Yang et al., TPAMI 45(8), 2023, arXiv 2207.11518, and the authors' code, which
    divides by the norms.

    Args:
        channels: of each stage's embedding, member after member.
        dim: of the space where they meet.
    """

    def __init__(self, channels: Sequence[int], dim: int = 128) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(width, dim) for width in channels)

    def forward(self, embeddings: Sequence[Tensor]) -> Tensor:
        """Compute the weights, in float32 at least.

        Args:
            embeddings: of the ``N`` stages, ``(B, C_n)``.

        Returns:
            ``(N, N, B)``, in (0.26, 0.74).
        """
        with torch.autocast(device_type=embeddings[0].device.type, enabled=False):
            vectors = torch.stack([
                unit(project(at_least_float32(embedding)), dim=1)
                for project, embedding in zip(self.projections, embeddings, strict=True)])
            return torch.einsum('nid,mid->nmi', vectors, vectors).sigmoid()
