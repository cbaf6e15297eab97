"""Do away with batch norms: into the layers before them, or a scale and a shift."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from mmcv.ops.modulated_deform_conv import ModulatedDeformConv2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

__all__ = ['fold_batch_norms', 'fold_into_layers', 'replace_module']

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


def fold_batch_norms(model: nn.Module, *example: Tensor) -> None:
    """Do away with every batch norm that runs, in place.

    Each moves into the layer before it, see :func:`fold_into_layers`. Where there is none (networks
    that normalise before they convolve), it becomes one scale and one shift for each channel.

    Args:
        model: In evaluation mode.
        *example: What the model is called with.
    """
    for norm in fold_into_layers(model, lambda: model(*example)):
        replace_module(model, norm, ScaleShift(norm))


class _Readers(TorchFunctionMode):
    """Counts for each layer the operations that read what it returned."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[nn.Module] = Counter()

    def __torch_function__(self, function: Any, types: Any, args: Any = (),
                           kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor | tuple | list):  # and not the size of a tensor, for example
            self.count((args, kwargs))
        return result

    def count(self, values: Any) -> None:
        """Add a reader of every tensor in ``values``."""
        for value in tree_leaves(values):
            if isinstance(value, Tensor) and hasattr(value, 'computed_by'):
                self.counts[value.computed_by] += 1


@torch.no_grad()
def fold_into_layers(model: nn.Module, run: Callable[[], Any]) -> list[_BatchNorm]:
    """Move batch norms into the convolution or linear layer before them, in place.

    Which layer that is shows during ``run()``: a batch norm whose input *is* the output of such a
    layer, which nothing else reads. The norm becomes an identity.

    Args:
        model: In evaluation mode.
        run: Calls the model once, and returns whatever must keep its value.

    Returns:
        the norms that ran and stay, as no layer could take them.
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
            result = run()
    finally:
        for hook in hooks:
            hook.remove()
    readers.count(result)
    left = []
    for norm, layer in before.items():
        # A layer that runs twice has two readers.
        if layer is None or readers.counts[layer] > 1 or _is_grouped_transposed(layer):
            left.append(norm)
        else:
            layer.weight, layer.bias = fuse_conv_bn_weights(
                layer.weight, layer.bias, norm.running_mean, norm.running_var, norm.eps,
                norm.weight, norm.bias, _is_transposed(layer))
            replace_module(model, norm, nn.Identity())
    return left


def replace_module(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put ``new`` wherever ``old`` stands in ``model``."""
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module is old:
            parent, _, child = name.rpartition('.')
            setattr(model.get_submodule(parent), child, new)


def _is_transposed(layer: nn.Module) -> bool:
    return isinstance(layer, (nn.ConvTranspose1d, nn.ConvTranspose2d))


def _is_grouped_transposed(layer: nn.Module) -> bool:
    # Its weight has the channels of all groups on one axis.
    return _is_transposed(layer) and layer.groups > 1
