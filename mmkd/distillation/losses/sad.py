"""Where a layer looks, made like where the next deeper one looks."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmkd.distillation.losses._features import check_maps
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['SADLoss']


class SADLoss(nn.Module):
    r"""Mean square difference of two spatial distributions of attention.

    ``L = 1 / (B H W) * sum_b || softmax(B(Q^l_b)) - softmax(B(Q^{l+1}_b)) ||_2^2`` with the
    attention map ``Q_b = sum_c |A_{bc}|^2``, the softmax over its cells, and ``B`` bilinear
    upsampling (without aligned corners) to the larger height and width of the two: the deeper,
    coarser map is brought to the shallower one's size, so no cell of the layer that learns is
    lost. As a term of a :class:`~mmkd.distillation.SelfTerm` every tapped layer imitates
    the next deeper one, which is a constant.

    Source: Y. Hou, Z. Ma, C. Liu, C. C. Loy, "Learning Lightweight Lane Detection CNNs by Self
    Attention Distillation", ICCV 2019, arXiv 1908.00821. The mean over cells, as its common
    implementations have it, stands for the paper's squared norm. There the term has the weight
    0.1 and begins when the network is partly trained.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: the shallow layer, ``(B, C_s, H_s, W_s)``.
            teacher: the deeper layer, ``(B, C_t, H_t, W_t)``; gets no gradient.

        Returns:
            a scalar.

        Raises:
            InputError: a feature is not four-dimensional or the batches differ.
        """
        check_maps(student, teacher)
        size = [max(sides) for sides in zip(student.shape[2:], teacher.shape[2:], strict=True)]
        with torch.autocast(device_type=student.device.type, enabled=False):
            return F.mse_loss(_attention(student, size), _attention(teacher.detach(), size))


def _attention(feature: Tensor, size: list[int]) -> Tensor:
    attention = at_least_float32(feature).square().sum(1, keepdim=True)
    if list(attention.shape[2:]) != size:
        attention = F.interpolate(attention, size=size, mode='bilinear', align_corners=False)
    return attention.flatten(1).softmax(1)
