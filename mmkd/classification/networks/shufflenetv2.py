"""ShuffleNetV2 of CIFAR and of ImageNet.

Ma, Zhang, Zheng, Sun. ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design.
ECCV 2018 (arXiv 1807.11164).
"""

import torch
from torch import Tensor, nn

from mmkd.classification.networks.base import (
    ReluStage,
    TappedNetwork,
    conv_bn,
    register_name,
    shuffle_channels,
)
from mmkd.errors import UserError
from mmkd.registry import MODELS

__all__ = ['ShuffleNetV2CIFAR', 'ShuffleNetV2ImageNet']

# Channels of the stages, and their numbers of units.
WIDTHS = {'0.5x': (48, 96, 192), '1x': (116, 232, 464)}
COUNTS = (4, 8, 4)


class SplitUnit(nn.Module):
    """Two branches of half the channels each, joined and shuffled, up to the last ReLU.

    At stride 1 the left half passes as it is. It has been through a ReLU, to which the stage's
    next one adds nothing. At stride 2 both branches take the whole input.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.left = None if stride == 1 else nn.Sequential(
            *conv_bn(in_channels, in_channels, 3, stride, groups=in_channels),
            *conv_bn(in_channels, half, 1))
        self.right = nn.Sequential(*conv_bn(half if stride == 1 else in_channels, half, 1),
                                   nn.ReLU(), *conv_bn(half, half, 3, stride, groups=half),
                                   *conv_bn(half, half, 1))

    def forward(self, feature: Tensor) -> Tensor:
        """Halve the size at stride 2."""
        if self.left is None:
            left, right = feature.chunk(2, dim=1)
        else:
            left, right = self.left(feature), feature
        return shuffle_channels(torch.cat([left, self.right(right)], 1), 2)


class ShuffleNetV2(TappedNetwork):
    """Three stages and a 1x1 convolution behind a stem of 24 channels.

    Args:
        width: '0.5x' or '1x'.
        stem: ``(B, 3, H, W)`` to 24 channels.

    Raises:
        UserError: there is no network of that width.
    """

    def __init__(self, width: str, stem: nn.Module) -> None:
        if width not in WIDTHS:
            raise UserError(f'{type(self).__name__} has no width {width!r}: give one of '
                            f'{", ".join(map(repr, WIDTHS))}')
        in_channels, stages = 24, []
        for channels, count in zip(WIDTHS[width], COUNTS, strict=True):
            stages.append(ReluStage([
                SplitUnit(channels if index else in_channels, channels, 1 if index else 2)
                for index in range(count)]))
            in_channels = channels
        super().__init__(stem, stages, 1024,
                         nn.Sequential(*conv_bn(in_channels, 1024, 1), nn.ReLU()))


@MODELS.register_module()
class ShuffleNetV2CIFAR(ShuffleNetV2):
    """ShuffleNetV2 for 32x32 images: three stages of 16, 8 and 4 cells a side.

    Registered by name: ``shufflenetv2_0_5x``, ``shufflenetv2_1x``. The stem is a 1x1
    convolution at full size. Weights start from PyTorch's defaults, as in the reference that the
    published distillation results belong to.

    Args:
        width: '0.5x' or '1x'.

    Raises:
        UserError: there is no network of that width.
    """

    def __init__(self, width: str = '1x') -> None:
        super().__init__(width, nn.Sequential(*conv_bn(3, 24, 1), nn.ReLU()))


@MODELS.register_module()
class ShuffleNetV2ImageNet(ShuffleNetV2):
    """ShuffleNetV2 for 224x224 images: three stages of strides 8, 16 and 32.

    Registered by name: ``imagenet_shufflenetv2`` (1x).

    Args:
        width: '0.5x' or '1x'.

    Raises:
        UserError: there is no network of that width.
    """

    def __init__(self, width: str = '1x') -> None:
        super().__init__(width, nn.Sequential(*conv_bn(3, 24, 3, stride=2), nn.ReLU(),
                                              nn.MaxPool2d(3, stride=2, padding=1)))


register_name('shufflenetv2_0_5x', ShuffleNetV2CIFAR, width='0.5x')
register_name('shufflenetv2_1x', ShuffleNetV2CIFAR, width='1x')
register_name('imagenet_shufflenetv2', ShuffleNetV2ImageNet)
