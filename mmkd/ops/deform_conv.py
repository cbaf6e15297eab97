"""Deformable convolution in plain PyTorch: stands in for mmcv's compiled ones, DCN and DCNv2.

Sources: J. Dai, H. Qi, Y. Xiong, Y. Li, G. Zhang, H. Hu, Y. Wei, "Deformable Convolutional
Networks", ICCV 2017, arXiv 1703.06211; X. Zhu, H. Hu, S. Lin, J. Dai, "Deformable ConvNets v2:
More Deformable, Better Results", CVPR 2019, arXiv 1811.11168.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkd.ops._gradients import backward_into, forward_into

__all__ = ['deform_conv_backward_input', 'deform_conv_backward_parameters', 'deform_conv_forward',
           'modulated_deform_conv2d', 'modulated_deform_conv_backward',
           'modulated_deform_conv_forward']


def modulated_deform_conv2d(x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor,
                            bias: Tensor | None, stride: tuple[int, int],
                            padding: tuple[int, int], dilation: tuple[int, int], groups: int,
                            deform_groups: int) -> Tensor:
    """Convolve samples taken beside the regular grid.

    ``y(p) = sum_k w_k * x(p + p_k + dp_k) * dm_k``, sampled bilinearly, zero outside ``x``.

    Args:
        x: ``(B, C, H, W)``.
        offset: ``(B, 2 * G * K, H', W')``: for each deformable group and kernel position the
            pair ``(dy, dx)`` in pixels of ``x``.
        mask: ``(B, G * K, H', W')``, the modulation ``dm``, or None for 1.
        weight: ``(O, C / groups, kh, kw)`` with ``K = kh * kw``.
        bias: ``(O,)`` or None.

    Returns:
        ``(B, O, H', W')``, the dtype of ``x``.
    """
    batch, channels, height, width = x.shape
    out_channels, _, kh, kw = weight.shape
    out_h, out_w = offset.shape[-2:]
    taps = kh * kw
    offset = offset.view(batch, deform_groups, taps, 2, out_h, out_w)

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
    sampled = sampled.view(batch, deform_groups, -1, taps, out_h, out_w)
    if mask is not None:
        sampled = sampled * mask.view(batch, deform_groups, 1, taps, out_h, out_w)
    columns_matrix = sampled.reshape(batch, groups, channels // groups * taps, out_h * out_w)
    kernels = weight.reshape(groups, out_channels // groups, -1)
    out = torch.matmul(kernels, columns_matrix).view(batch, out_channels, out_h, out_w)
    return out if bias is None else out + bias.view(1, -1, 1, 1)


def deform_conv_forward(input: Tensor, weight: Tensor, offset: Tensor, output: Tensor,
                        columns: Tensor, ones: Tensor, **settings: int) -> None:
    """Fill ``output`` with the convolution without modulation and bias.

    The shapes are those of :func:`modulated_deform_conv2d`. ``columns`` and ``ones`` are memory
    that the compiled operators need, and these do not.
    """
    forward_into(output, _plain(settings), input, offset, weight)


def deform_conv_backward_input(input: Tensor, offset: Tensor, grad_output: Tensor,
                               grad_input: Tensor, grad_offset: Tensor, weight: Tensor,
                               columns: Tensor, **settings: int) -> None:
    """Fill ``grad_input`` and ``grad_offset``."""
    backward_into([grad_input, grad_offset], partial(_plain(settings), weight=weight),
                  [input, offset], grad_output)


def deform_conv_backward_parameters(input: Tensor, offset: Tensor, grad_output: Tensor,
                                    grad_weight: Tensor, columns: Tensor, ones: Tensor,
                                    scale: float, **settings: int) -> None:
    """Fill ``grad_weight``, times ``scale``."""
    # Linear in the weight, which is not given: the gradient is the same at any.
    backward_into([grad_weight], partial(_plain(settings), input, offset), [grad_weight],
                  grad_output * scale)


def modulated_deform_conv_forward(input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor,
                                  offset: Tensor, mask: Tensor, output: Tensor, columns: Tensor,
                                  **settings: int) -> None:
    """Fill ``output`` with the modulated deformable convolution.

    The shapes are those of :func:`modulated_deform_conv2d`; without a bias, ``bias`` is empty.
    """
    forward_into(output, _modulated(settings), input, offset, mask, weight, bias)


def modulated_deform_conv_backward(input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor,
                                   offset: Tensor, mask: Tensor, columns: Tensor,
                                   grad_input: Tensor, grad_weight: Tensor, grad_bias: Tensor,
                                   grad_offset: Tensor, grad_mask: Tensor, grad_output: Tensor,
                                   **settings: int) -> None:
    """Fill the gradients by the input, the weight, the bias (if any), the offset and the mask."""
    gradients = [grad_input, grad_offset, grad_mask, grad_weight]
    inputs = [input, offset, mask, weight]
    if settings['with_bias']:
        gradients.append(grad_bias)
        inputs.append(bias)
    backward_into(gradients, _modulated(settings), inputs, grad_output)


def _modulated(settings: dict[str, int]) -> Callable[..., Tensor]:
    geometry = tuple((settings[f'{name}_h'], settings[f'{name}_w'])
                     for name in ('stride', 'pad', 'dilation'))

    def convolve(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor,
                 bias: Tensor | None = None) -> Tensor:
        bias = bias if settings['with_bias'] else None
        return modulated_deform_conv2d(x, offset, mask, weight, bias, *geometry,
                                       settings['group'], settings['deformable_group'])

    return convolve


def _plain(settings: dict[str, int]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return the convolution; mmcv names its settings as here, and differently above."""
    geometry = tuple((settings[f'{name}H'], settings[f'{name}W'])
                     for name in ('d', 'pad', 'dilation'))

    def convolve(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
        return modulated_deform_conv2d(x, offset, None, weight, None, *geometry,
                                       settings['group'], settings['deformable_group'])

    return convolve
