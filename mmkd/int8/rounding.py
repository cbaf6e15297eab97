"""Rounding to eight bits as onnxruntime does it, with gradients that pass through.

``torch.ao.quantization``'s modules are deprecated, and what torchao has in their place works on
graphs of ``torch.export``, which a detector in training is not. PyTorch's operators
``fake_quantize_per_*`` below them stay.

Source: B. Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", CVPR 2018, arXiv 1712.05877; R. Krishnamoorthi, "Quantizing deep
convolutional networks for efficient inference: A whitepaper", 2018, arXiv 1806.08342.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ['is_convolution', 'rounded_bias', 'rounded_feature', 'rounded_weight', 'scale_and_zero',
           'with_norm']

LEVELS, LARGEST = 255, 127
"""A feature has the steps 0 to 255, a weight -127 to 127."""


def scale_and_zero(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return size and zero of the steps of a feature: ``x`` is about ``scale * (q - zero)``.

    Args:
        low: smallest value, at most 0; any shape.
        high: largest value, at least 0.

    Returns:
        ``scale = (high - low) / 255``, float32, 1 where both are 0, and ``round(-low / scale)``,
        int32.
    """
    scale = ((high.double() - low.double()) / LEVELS).float()
    scale = torch.where(scale < torch.finfo(torch.float32).tiny, torch.ones_like(scale), scale)
    return scale, (-low / scale).round().clamp(0, LEVELS).int()


def rounded_feature(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Round a feature to the 256 values from ``low`` to ``high``.

    A gradient passes where ``x`` lies between them and is 0 elsewhere.
    """
    return torch.fake_quantize_per_tensor_affine(x, *scale_and_zero(low, high), 0, LEVELS)


def rounded_weight(weight: Tensor, layer: nn.Module) -> Tensor:
    """Round a layer's weight to 255 values for each output channel.

    ``s = max |w| / 127`` of the channel and ``s * round(w / s)``; a gradient passes. A transposed
    convolution is computed in int8 as the convolution that ``as_convolution`` of
    :mod:`mmkd.deploy.transposed` makes of it, with channels of their own for each phase of a place.

    Args:
        weight: of the layer's shape.
        layer: a convolution, a transposed one for which :func:`is_convolution` holds, or linear.
    """
    if not isinstance(layer, nn.ConvTranspose2d):
        return _rounded(weight, 0)
    result = weight
    stride = layer.stride[0]
    for row in range(stride):
        for column in range(stride):
            phase = torch.zeros_like(weight[0, 0], dtype=torch.bool)
            phase[row::stride, column::stride] = True
            result = torch.where(phase, _rounded(weight * phase, 1), result)
    return result


def rounded_bias(bias: Tensor | None, weight: Tensor, layer: nn.Module,
                 step: Tensor) -> Tensor | None:
    """Round a layer's bias to the multiples of ``step * s`` that an int32 beside its sums has.

    ``s`` is the scale of the channel's weight; a gradient passes. This moves a layer's output by a
    hundredth of its steps or so, which decides what some values are rounded to. Of a transposed
    convolution the bias stays as it is, since each phase of a place has another ``s``.

    Args:
        bias: ``(channels,)``, or None.
        weight: not rounded.
        layer: see :func:`rounded_weight`.
        step: size of the steps of the feature that goes in, from :func:`scale_and_zero`.
    """
    if bias is None or isinstance(layer, nn.ConvTranspose2d):
        return bias
    unit = step * _scale(weight, 0)
    return bias + ((bias / unit).round() * unit - bias).detach()


def _scale(weight: Tensor, axis: int) -> Tensor:
    others = [dim for dim in range(weight.ndim) if dim != axis]
    scale = weight.detach().abs().amax(others) / LARGEST
    return torch.where(scale < torch.finfo(torch.float32).tiny, torch.ones_like(scale), scale)


def _rounded(weight: Tensor, axis: int) -> Tensor:
    scale = _scale(weight, axis)
    zero = torch.zeros_like(scale, dtype=torch.int32)
    # PyTorch multiplies by 1 / scale, which decides otherwise where a weight lies halfway.
    steps = scale.reshape([-1 if dim == axis else 1 for dim in range(weight.ndim)])
    nearest = weight + ((weight / steps).round() * steps - weight).detach()
    return torch.fake_quantize_per_channel_affine(nearest, scale, zero, axis, -LARGEST, LARGEST)


def is_convolution(layer: nn.ConvTranspose2d) -> bool:
    """Whether int8 has a transposed convolution; see :mod:`mmkd.deploy.transposed`."""
    stride, padding = layer.stride, layer.padding
    return (layer.groups == 1 and set(layer.dilation) == {1} and not any(layer.output_padding)
            and stride[0] == stride[1]
            and all(size - 2 * pad == step for size, pad, step
                    in zip(layer.kernel_size, padding, stride, strict=True)))


def with_norm(layer: nn.Module, norm: _BatchNorm | None) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of a layer and the batch norm behind it as one layer.

    By the norm's running statistics, in the arithmetic of
    :func:`torch.nn.utils.fusion.fuse_conv_bn_weights`, which the export uses and which has no
    gradients.
    """
    weight, bias = layer.weight, layer.bias
    if norm is None:
        return weight, bias
    factor = (norm.running_var + norm.eps).rsqrt()
    gain = factor if norm.weight is None else norm.weight * factor
    axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    shape = [-1 if dim == axis else 1 for dim in range(weight.ndim)]
    shift = -norm.running_mean if bias is None else bias - norm.running_mean
    shift = shift * factor if norm.weight is None else shift * factor * norm.weight
    return weight * gain.reshape(shape), shift if norm.bias is None else shift + norm.bias
