"""Mixed precision where there is no GPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from mmkd.registry import OPTIM_WRAPPERS

__all__ = ['CPUAmpOptimWrapper']


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Compute the losses under bfloat16 autocast on the CPU.

    mmengine's ``AmpOptimWrapper`` insists on a GPU. bfloat16 has the range of float32, so the loss
    is not scaled.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The context of the forward pass and the losses."""
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16):
            yield
