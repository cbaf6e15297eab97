"""Wide ResNets of CIFAR.

Zagoruyko, Komodakis. Wide Residual Networks. BMVC 2016 (arXiv 1605.07146).
"""

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from mmkd.classification.networks.base import TappedNetwork, init_convolutions, register_name
from mmkd.errors import UserError
from mmkd.registry import MODELS

__all__ = ['WideResNet']


def _conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)


class PreActivationBlock(nn.Module):
    """Batch norm, ReLU and 3x3 convolution, twice, beside a shortcut.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output; where they differ, the shortcut is a projection of
            the activated input.
        stride: of the first convolution.
        activated: the input has been through its batch norm and ReLU already.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, activated: bool) -> None:
        super().__init__()
        # An identity shortcut takes the input before its batch norm, which would be gone.
        assert not activated or in_channels != out_channels
        self.bn1 = None if activated else nn.BatchNorm2d(in_channels)
        self.conv1 = _conv(in_channels, out_channels, 3, stride)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = _conv(out_channels, out_channels, 3)
        self.shortcut = (None if in_channels == out_channels
                         else _conv(in_channels, out_channels, 1, stride))

    def forward(self, feature: Tensor) -> Tensor:
        """Halve the size at stride 2."""
        active = feature if self.bn1 is None else F.relu(self.bn1(feature))
        shortcut = feature if self.shortcut is None else self.shortcut(active)
        return shortcut + self.conv2(F.relu(self.bn2(self.conv1(active))))


@MODELS.register_module()
class WideResNet(TappedNetwork):
    """WRN-depth-width for 32x32 images: three stages of 32x32, 16x16 and 8x8 cells.

    Registered by name: ``wrn_16_1``, ``wrn_16_2``, ``wrn_40_1``, ``wrn_40_2``, ``wrn_28_4``.
    A stage ends with the batch norm (its ``preact``) and the ReLU that the next stage, or the
    pooling, begins with in the paper: both of the next stage's paths take what these give, so the
    network is the same. The stem is a bare convolution: the first block of ``stage1`` keeps its
    own batch norm, since at width 1 its shortcut takes the stem's output as it is.

    Args:
        depth: ``6n + 4`` layers.
        width: factor of the 16, 32 and 64 channels of the stages.

    Raises:
        UserError: there is no network of that depth.
    """

    def __init__(self, depth: int, width: int = 1) -> None:
        if depth < 10 or depth % 6 != 4:
            raise UserError(f'WideResNet has no depth {depth}: give 6n + 4, such as 16, 28 or 40')
        count, in_channels, stages = (depth - 4) // 6, 16, []
        for number, channels in enumerate((16 * width, 32 * width, 64 * width)):
            later = number > 0
            blocks = [PreActivationBlock(in_channels, channels, 2 if later else 1, later)]
            blocks += [PreActivationBlock(channels, channels, 1, False) for _ in range(count - 1)]
            stages.append(nn.Sequential(OrderedDict(
                blocks=nn.Sequential(*blocks), preact=nn.BatchNorm2d(channels), relu=nn.ReLU())))
            in_channels = channels
        super().__init__(_conv(3, 16, 3), stages, 64 * width)
        init_convolutions(self)


for _depth, _width in ((16, 1), (16, 2), (40, 1), (40, 2), (28, 4)):
    register_name(f'wrn_{_depth}_{_width}', WideResNet, depth=_depth, width=_width)
