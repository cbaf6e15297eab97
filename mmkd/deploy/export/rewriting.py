"""Rewrite a network for inference: constant padding, plain sampling, half precision."""

import torch.nn.functional as F
from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from mmcv.ops.deform_conv import DeformConv2d, DeformConv2dPack
from mmcv.ops.modulated_deform_conv import ModulatedDeformConv2d
from mmdet.models.dense_heads import TOODHead
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from mmkd.deploy.export.folding import replace_module
from mmkd.ops.deform_conv import modulated_deform_conv2d

__all__ = ['fix_padding', 'sample_plainly', 'to_half']


class _PaddedConv(nn.Module):
    """A convolution that pads by what its stride needs, whatever the size of the input."""

    def __init__(self, conv: Conv2dAdaptivePadding) -> None:
        super().__init__()
        self.conv = conv
        # Rows and columns that the kernel reaches beyond its stride; the odd one goes to the end.
        rows, columns = (max((kernel - 1) * dilation + 1 - stride, 0) for kernel, dilation, stride
                         in zip(conv.kernel_size, conv.dilation, conv.stride, strict=True))
        self.padding = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv
        return F.conv2d(F.pad(x, self.padding), conv.weight, conv.bias, conv.stride, conv.padding,
                        conv.dilation, conv.groups)


def fix_padding(model: nn.Module) -> None:
    """Replace padding that is computed from the size of the input by a constant, in place.

    The two agree where sizes are multiples of the strides. An exporter that has to follow the
    computation for a size that varies takes minutes.
    """
    for module in list(model.modules()):
        if isinstance(module, Conv2dAdaptivePadding):
            replace_module(model, module, _PaddedConv(module))


class _PlainDeformConv(nn.Module):
    """mmcv's deformable convolution, the first version, as operations that an exporter knows."""

    def __init__(self, conv: DeformConv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor, offset: Tensor | None = None) -> Tensor:
        conv = self.conv
        if isinstance(conv, DeformConv2dPack):
            offset = conv.conv_offset(x)
        return modulated_deform_conv2d(
            x, offset, None, conv.weight, None, _pair(conv.stride), _pair(conv.padding),
            _pair(conv.dilation), conv.groups, conv.deform_groups)


def _sample(feature: Tensor, offset: Tensor) -> Tensor:
    """What ``TOODHead.deform_sampling`` computes: each channel read at places of its own."""
    channels = feature.shape[1]
    return modulated_deform_conv2d(feature, offset, None, feature.new_ones(channels, 1, 1, 1), None,
                                   (1, 1), (0, 0), (1, 1), channels, channels)


def sample_plainly(model: nn.Module) -> None:
    """Replace deformable convolutions of the first version, in place.

    mmcv's calls an operator that writes into its output, which no exporter can follow.
    """
    for module in list(model.modules()):
        if isinstance(module, DeformConv2d):
            replace_module(model, module, _PlainDeformConv(module))
        elif isinstance(module, TOODHead):
            module.deform_sampling = _sample


class _InFloat32(nn.Module):
    """A layer that computes in float32 within a network in float16."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer.float()

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        return self.layer(x.float(), *(other.float() for other in others)).to(x.dtype)


def to_half(model: nn.Module) -> None:
    """Turn weights and buffers into float16, in place, but for deformable convolutions.

    Those compute where to sample, and float16 tells places beyond 64 apart by no less than 1/16 px.
    """
    model.half()
    for module in list(model.modules()):
        if isinstance(module, ModulatedDeformConv2d | _PlainDeformConv):
            replace_module(model, module, _InFloat32(module))
