"""Feature imitation where the teacher's attention lies."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from mmkd.distillation.losses._errors import check_temperature
from mmkd.distillation.losses._image_weights import weighted
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['AttentionLoss']


class AttentionLoss(nn.Module):
    r"""Square difference of two features, weighted by the teacher's attention.

    ``L = 1 / (B C H W) * sum_{bcyx} A^S_{byx} A^C_{bc} (F^t_{bcyx} - F^s_{bcyx})^2`` with

    * spatial attention ``A^S = H W softmax_{yx}(G^S / T)``, ``G^S_{yx} = 1/C sum_c |F^t_{cyx}|``,
    * channel attention ``A^C = C softmax_c(G^C / T)``, ``G^C_c = 1/(H W) sum_{yx} |F^t_{cyx}|``.

    Both attentions have mean 1, so ``L`` is a weighted mean square.

    Source: attention and imitation as in Z. Yang et al., "Focal and Global Knowledge Distillation
    for Detectors", CVPR 2022, arXiv 2111.11837, which masks foreground and background by
    the annotated boxes and sums; here there is one region and a mean. It stands for the
    "distillation attention mechanism" (w4) of Liu, Du, She, Yang, Systems Engineering and
    Electronics 46(4), 2024, which does not print its formula.

    Args:
        temperature: ``T`` > 0; FGD's 0.5.

    Raises:
        InputError: the temperature is not above 0.
    """

    def __init__(self, temperature: float = 0.5) -> None:
        super().__init__()
        check_temperature(temperature, 'AttentionLoss')
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor,
                image_weights: Tensor | None = None) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: ``(B, C, H, W)``, already in the teacher's feature space.
            teacher: the same shape; gets no gradient.
            image_weights: ``(B,)``, a factor for each image; None for 1.

        Returns:
            a scalar.
        """
        teacher = at_least_float32(teacher.detach())
        batch, channels, height, width = teacher.shape
        magnitude = teacher.abs()
        spatial = torch.softmax(magnitude.mean(1).flatten(1) / self.temperature, dim=1)
        spatial = weighted(spatial, image_weights)
        channel = torch.softmax(magnitude.mean((2, 3)) / self.temperature, dim=1)
        total = _WeightedSquares.apply(at_least_float32(student), teacher,
                                       spatial.view(batch, 1, height, width),
                                       channel.view(batch, channels, 1, 1))
        return total / batch  # the rest of the mean's 1 / (B C H W) is in the softmaxes


class _WeightedSquares(Function):
    """``sum_{bcyx} A_{byx} C_{bc} (t_{bcyx} - s_{bcyx})^2``, with a gradient for ``s`` alone.

    The features are large and the arithmetic is little, so that memory decides: the operations one
    by one would keep three arrays of that size, and take twice as long.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, spatial: Tensor,
                channel: Tensor) -> Tensor:
        difference = student - teacher
        weighted = difference * spatial
        ctx.save_for_backward(weighted, channel)
        return (difference.mul_(weighted).sum((2, 3), keepdim=True) * channel).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        weighted, channel = ctx.saved_tensors
        return weighted * (2 * gradient * channel), None, None, None
