"""MobileNetV2 of CIFAR.

Sandler, Howard, Zhu, Zhmoginov, Chen. MobileNetV2: Inverted Residuals and Linear Bottlenecks.
CVPR 2018 (arXiv 1801.04381).
"""

from collections import OrderedDict

from torch import Tensor, nn

from mmkd.classification.networks.base import (
    TappedNetwork,
    conv_bn,
    init_convolutions,
    register_name,
)
from mmkd.registry import MODELS

__all__ = ['MobileNetV2CIFAR']

# Of each stage: channels, number of blocks and stride of each row of the paper's table.
STAGES = (((16, 1, 1), (24, 2, 1)), ((32, 3, 2),), ((64, 4, 2), (96, 3, 1)),
          ((160, 3, 2), (320, 1, 1)))


class InvertedResidual(nn.Module):
    """Widen by 1x1, filter each channel by 3x3, and narrow by 1x1 without a ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = in_channels * expansion
        self.conv = nn.Sequential(*conv_bn(in_channels, wide, 1), nn.ReLU(),
                                  *conv_bn(wide, wide, 3, stride, groups=wide), nn.ReLU(),
                                  *conv_bn(wide, out_channels, 1))
        self.adds = stride == 1 and in_channels == out_channels

    def forward(self, feature: Tensor) -> Tensor:
        """Halve the size at stride 2."""
        return feature + self.conv(feature) if self.adds else self.conv(feature)


@MODELS.register_module()
class MobileNetV2CIFAR(TappedNetwork):
    """MobileNetV2 for 32x32 images: four stages of 16, 8, 4 and 2 cells a side.

    Registered by name: ``mobilenetv2_half``, the student of the distillation literature, with
    half the channels. A stage ends with a linear bottleneck: it has no last ReLU, so ``stageK``
    and ``stageK.preact`` are the same value and may be negative.

    Args:
        width: factor of the channels, except for the 1280 of the embedding.
        expansion: ``T``, how much a block widens its input; the first does not.
    """

    def __init__(self, width: float = 0.5, expansion: int = 6) -> None:
        first = in_channels = int(32 * width)
        stages = []
        for rows in STAGES:
            blocks = []
            for channels, count, stride in rows:
                for index in range(count):
                    blocks.append(InvertedResidual(in_channels, int(channels * width),
                                                   1 if index else stride,
                                                   expansion if channels > 16 else 1))
                    in_channels = int(channels * width)
            stages.append(nn.Sequential(OrderedDict(blocks=nn.Sequential(*blocks),
                                                    preact=nn.Identity())))
        super().__init__(nn.Sequential(*conv_bn(3, first, 3, stride=2), nn.ReLU()), stages, 1280,
                         nn.Sequential(*conv_bn(in_channels, 1280, 1), nn.ReLU()))
        init_convolutions(self)


register_name('mobilenetv2_half', MobileNetV2CIFAR, width=0.5)
