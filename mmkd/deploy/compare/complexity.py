"""Parameters, floating-point operations and bytes of a network."""

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

__all__ = ['count_flops', 'count_parameters', 'weight_bytes']


def count_parameters(model: nn.Module) -> int:
    """Return how many numbers training adapts; a shared one counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def weight_bytes(model: nn.Module) -> int:
    """Return how many bytes the parameters and buffers take, which is what a state dict holds."""
    return sum(value.numel() * value.element_size() for value in model.state_dict().values())


def count_flops(module: nn.Module, input_size: tuple[int, int]) -> int:
    """Count the floating-point operations of one image.

    Those of convolutions and matrix products, as PyTorch's counter knows them; a multiplication
    and the addition after it are two. (Many papers count them as one, and call that FLOPs, too.)
    Nothing is computed: a copy runs on PyTorch's ``meta`` device.

    Args:
        module: A network in evaluation mode that takes ``(1, 3, H, W)`` float32.
        input_size: ``(H, W)``.
    """
    module = copy.deepcopy(module).to('meta')
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(torch.zeros(1, 3, *input_size, device='meta'))
    return counter.get_total_flops()
