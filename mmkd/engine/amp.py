"""Mixed precision where there is no GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from mmkd.errors import UserError
from mmkd.registry import OPTIM_WRAPPERS

__all__ = ['CPUAmpOptimWrapper', 'keep_strided_depthwise_in_float32']

DTYPES = dict(bfloat16=torch.bfloat16, float16=torch.float16)


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Compute the losses under autocast on the CPU; mmengine's ``AmpOptimWrapper`` is for GPUs.

    bfloat16 has the range of float32, so its loss is not scaled; that of float16 is scaled
    dynamically, and an update whose gradients overflow is left out, as on a GPU.

    Args:
        dtype: ``'bfloat16'`` or ``'float16'``.
        **kwargs: what ``OptimWrapper`` takes.

    Raises:
        UserError: ``dtype`` is another.
    """

    def __init__(self, dtype: str = 'bfloat16', **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if dtype not in DTYPES:
            raise UserError(f"CPUAmpOptimWrapper has dtype {dtype!r}: give 'bfloat16' or 'float16'")
        self.dtype = DTYPES[dtype]
        self.loss_scaler = torch.amp.GradScaler('cpu', enabled=dtype == 'float16')

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The context of the forward pass and the losses."""
        with super().optim_context(model), torch.autocast('cpu', self.dtype):
            yield

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Compute the gradients of the scaled loss."""
        super().backward(self.loss_scaler.scale(loss), **kwargs)

    def step(self, **kwargs: Any) -> None:
        """Update the parameters, unless a gradient overflowed."""
        if self.clip_grad_kwargs:
            self.loss_scaler.unscale_(self.optimizer)
            self._clip_grad()
        self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state and the scale, under the key that mmengine's has on a GPU."""
        return dict(super().state_dict(), loss_scaler=self.loss_scaler.state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore both; the scale of a run in another precision is no use here."""
        scaler = state_dict.pop('loss_scaler', None)
        if scaler:
            self.loss_scaler.load_state_dict(scaler)
        super().load_state_dict(state_dict)


class _Float32Conv2d(nn.Conv2d):
    """A convolution that autocast leaves in float32."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve in float32 and return the input's dtype."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float()).to(x.dtype)


def keep_strided_depthwise_in_float32(model: nn.Module) -> None:
    """Take depthwise convolutions with a stride out of mixed precision, in place.

    On CPUs the gradient of their input in bfloat16 is not vectorised: 6 to 50 times slower than in
    float32, and together a third of a training step of MobileNetV2. Everything else about them
    stays: names, weights, and the dtype that they return.
    """
    for module in model.modules():
        depthwise = type(module) is nn.Conv2d and 1 < module.groups == module.in_channels
        if depthwise and max(module.stride) > 1:
            module.__class__ = _Float32Conv2d
