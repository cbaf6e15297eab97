"""Modulated deformable convolution (DCNv2) in plain PyTorch."""

import torch
import torch.nn.functional as F
from mmcv.ops import modulated_deform_conv as compiled
from mmengine.registry import MODELS
from torch import Tensor
from torch.nn.modules.utils import _pair

from mmkd.ops.extension import has_compiled_extension

__all__ = ['ModulatedDeformConv2dPack', 'modulated_deform_conv2d']


def modulated_deform_conv2d(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor,
                            bias: Tensor | None, stride: tuple[int, int],
                            padding: tuple[int, int], dilation: tuple[int, int], groups: int,
                            deform_groups: int) -> Tensor:
    """Convolve samples taken beside the regular grid.

    ``y(p) = sum_k w_k * x(p + p_k + dp_k) * dm_k``, sampled bilinearly, zero outside ``x``.

    Args:
        x: ``(B, C, H, W)``.
        offset: ``(B, 2 * G * K, H', W')``: for each deformable group and kernel position the
            pair ``(dy, dx)`` in pixels of ``x``.
        mask: ``(B, G * K, H', W')``, the modulation ``dm``.
        weight: ``(O, C / groups, kh, kw)`` with ``K = kh * kw``.
        bias: ``(O,)`` or None.

    Returns:
        ``(B, O, H', W')``, the dtype of ``x``.

    Source: X. Zhu, H. Hu, S. Lin, J. Dai, "Deformable ConvNets v2: More Deformable, Better
    Results", CVPR 2019, arXiv 1811.11168.
    """
    batch, channels, height, width = x.shape
    out_channels, _, kh, kw = weight.shape
    out_h, out_w = offset.shape[-2:]
    taps = kh * kw
    offset = offset.view(batch, deform_groups, taps, 2, out_h, out_w)
    mask = mask.view(batch, deform_groups, 1, taps, out_h, out_w)

    def positions(size: int, kernel: int, axis: int) -> Tensor:
        base = torch.arange(size, device=x.device, dtype=offset.dtype) * stride[axis]
        steps = torch.arange(kernel, device=x.device, dtype=offset.dtype) * dilation[axis]
        return steps[:, None] + base[None] - padding[axis]

    rows = positions(out_h, kh, 0).repeat_interleave(kw, 0).view(taps, out_h, 1)
    columns = positions(out_w, kw, 1).repeat(kh, 1).view(taps, 1, out_w)
    rows = rows + offset[:, :, :, 0]
    columns = columns + offset[:, :, :, 1]
    # grid_sample counts from -1 to 1 between the outer edges of the border pixels.
    grid = torch.stack(((2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1), dim=-1)
    grid = grid.reshape(batch * deform_groups, taps * out_h, out_w, 2)
    grouped = x.reshape(batch * deform_groups, channels // deform_groups, height, width)
    sampled = F.grid_sample(grouped, grid.to(x.dtype), mode='bilinear', padding_mode='zeros',
                            align_corners=False)
    sampled = sampled.view(batch, deform_groups, -1, taps, out_h, out_w) * mask
    columns_matrix = sampled.reshape(batch, groups, channels // groups * taps, out_h * out_w)
    kernels = weight.reshape(groups, out_channels // groups, -1)
    out = torch.matmul(kernels, columns_matrix).view(batch, out_channels, out_h, out_w)
    return out if bias is None else out + bias.view(1, -1, 1, 1)


class ModulatedDeformConv2dPack(compiled.ModulatedDeformConv2dPack):
    """mmcv's ``DCNv2`` layer (same parameters, same checkpoints) without its extension."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, O, H', W')`` for ``x`` of shape ``(B, C, H, W)``."""
        rows, columns, mask = self.conv_offset(x).chunk(3, dim=1)
        offset = torch.cat((rows, columns), dim=1)
        return modulated_deform_conv2d(
            x, offset, mask.sigmoid(), self.weight, self.bias, _pair(self.stride),
            _pair(self.padding), _pair(self.dilation), self.groups, self.deform_groups)


if not has_compiled_extension():
    # mmcv keeps its layer in mmengine's root registry; so that a teacher built under
    # MMDetection's own scope finds a layer that runs, it is replaced there.
    MODELS.register_module(name='DCNv2', module=ModulatedDeformConv2dPack, force=True)
