"""mmcv's layer ``DCNv2`` as PyTorch operations, which autograd sees one by one."""

import torch
from mmcv.ops import modulated_deform_conv as compiled
from mmengine.registry import MODELS
from torch import Tensor
from torch.nn.modules.utils import _pair

from mmkd.ops.deform_conv import modulated_deform_conv2d
from mmkd.ops.extension import has_compiled_extension

__all__ = ['ModulatedDeformConv2dPack']


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
    # mmcv's own layer runs as well, on the operators of mmkd.ops.deform_conv. But those compute the
    # layer again in the backward pass, and a training step of it takes a third longer.
    # mmcv keeps its layer in mmengine's root registry; so that a teacher built under
    # MMDetection's own scope gets this one too, it is replaced there.
    MODELS.register_module(name='DCNv2', module=ModulatedDeformConv2dPack, force=True)
