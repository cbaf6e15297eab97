"""Rewrite a network for inference: no batch norms, constant padding, half precision."""

from collections import Counter
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from mmcv.ops.modulated_deform_conv import ModulatedDeformConv2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

__all__ = ['fix_padding', 'fold_batch_norms', 'to_half']

LINEAR = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Linear,
          ModulatedDeformConv2d)


class ScaleShift(nn.Module):
    """A batch norm in evaluation mode as ``x * scale + shift`` for each channel."""

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        scale = (norm.running_var + norm.eps).rsqrt()
        if norm.weight is not None:
            scale = scale * norm.weight
        shift = -norm.running_mean * scale
        if norm.bias is not None:
            shift = shift + norm.bias
        self.register_buffer('scale', scale.detach())
        self.register_buffer('shift', shift.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Scale and shift ``(B, C, ...)``."""
        shape = (-1,) + (1,) * (x.ndim - 2)
        return x * self.scale.view(shape) + self.shift.view(shape)


class _Readers(TorchFunctionMode):
    """Counts for each layer the operations that read what it returned."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[nn.Module] = Counter()

    def __torch_function__(self, function: Any, types: Any, args: Any = (),
                           kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor | tuple | list):  # and not the size of a tensor, for example
            for value in tree_leaves((args, kwargs)):
                if isinstance(value, Tensor) and hasattr(value, 'computed_by'):
                    self.counts[value.computed_by] += 1
        return result


@torch.no_grad()
def fold_batch_norms(model: nn.Module, *example: Tensor) -> None:
    """Move every batch norm into the convolution or linear layer before it, in place.

    Which layer that is shows when the model runs on ``example``: a batch norm whose input *is* the
    output of such a layer, which nothing else reads. Where there is none (networks that normalise
    before they convolve), the norm becomes one scale and one shift for each channel. A norm that
    does not run stays.

    Args:
        model: In evaluation mode.
        *example: What the model is called with.
    """
    before: dict[_BatchNorm, nn.Module | None] = {}

    def mark(layer: nn.Module, _: tuple, output: Tensor) -> None:
        output.computed_by = layer

    def find(norm: _BatchNorm, inputs: tuple) -> None:
        layer = getattr(inputs[0], 'computed_by', None)
        # Called twice, it belongs to no one layer.
        before[norm] = None if norm in before else layer

    hooks = [module.register_forward_hook(mark) for module in model.modules()
             if isinstance(module, LINEAR)]
    hooks += [module.register_forward_pre_hook(find) for module in model.modules()
              if isinstance(module, _BatchNorm) and module.running_mean is not None]
    try:
        with _Readers() as readers:
            model(*example)
    finally:
        for hook in hooks:
            hook.remove()
    for norm, layer in before.items():
        # A layer that runs twice has two readers.
        if layer is None or readers.counts[layer] > 1 or _is_grouped_transposed(layer):
            _replace(model, norm, ScaleShift(norm))
        else:
            layer.weight, layer.bias = fuse_conv_bn_weights(
                layer.weight, layer.bias, norm.running_mean, norm.running_var, norm.eps,
                norm.weight, norm.bias, _is_transposed(layer))
            _replace(model, norm, nn.Identity())


def _is_transposed(layer: nn.Module) -> bool:
    return isinstance(layer, (nn.ConvTranspose1d, nn.ConvTranspose2d))


def _is_grouped_transposed(layer: nn.Module) -> bool:
    # Its weight has the channels of all groups on one axis.
    return _is_transposed(layer) and layer.groups > 1


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put ``new`` wherever ``old`` stands."""
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module is old:
            parent, _, child = name.rpartition('.')
            setattr(model.get_submodule(parent), child, new)


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
            _replace(model, module, _PaddedConv(module))


class _InFloat32(nn.Module):
    """A layer that computes in float32 within a network in float16."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer.float()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.float()).to(x.dtype)


def to_half(model: nn.Module) -> None:
    """Turn weights and buffers into float16, in place, but for deformable convolutions.

    Those compute where to sample, and float16 tells places beyond 64 apart by no less than 1/16 px.
    """
    model.half()
    for module in list(model.modules()):
        if isinstance(module, ModulatedDeformConv2d):
            _replace(model, module, _InFloat32(module))
