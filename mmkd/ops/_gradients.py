"""How one differentiable function serves mmcv's pair of a forward and a backward operator.

mmcv's autograd Functions allocate a tensor for each result and let the extension fill it. A
backward operator is given the inputs again, not what the forward one computed: so it is computed
a second time, and differentiated by autograd.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ['backward_into', 'forward_into']


def forward_into(output: Tensor, function: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Fill ``output`` with ``function(*inputs)``."""
    with torch.no_grad():
        result = function(*inputs)
        if result.shape != output.shape:  # copying would broadcast
            raise ValueError(f'the operator gives {tuple(result.shape)}, where its caller expects '
                             f'{tuple(output.shape)}: its inputs do not fit each other')
        output.copy_(result)


def backward_into(gradients: Sequence[Tensor], function: Callable[..., Tensor],
                  inputs: Sequence[Tensor], grad_output: Tensor) -> None:
    """Fill each of ``gradients`` with that of ``sum(grad_output * function(*inputs))``."""
    with torch.enable_grad():
        leaves = [value.detach().requires_grad_() for value in inputs]
        output = function(*leaves)
    found = torch.autograd.grad(output, leaves, grad_output.to(output.dtype))
    for gradient, value in zip(gradients, found, strict=True):
        gradient.copy_(value)
