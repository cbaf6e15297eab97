"""ShuffleNetV1 of CIFAR.

Zhang, Zhou, Lin, Sun. ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile
Devices. CVPR 2018 (arXiv 1707.01083).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmkd.classification.networks.base import (
    ReluStage,
    TappedNetwork,
    conv_bn,
    register_name,
    shuffle_channels,
)
from mmkd.registry import MODELS

__all__ = ['ShuffleNetV1CIFAR']

GROUPS = 3
STEM = 24
# Of each stage: channels and number of units.
COUNTS = {240: 4, 480: 8, 960: 4}


class ShuffleUnit(nn.Module):
    """Grouped 1x1, shuffle, 3x3 of each channel and grouped 1x1, up to the last ReLU.

    At stride 1 the input is added; at stride 2 it is pooled and appended. As in the reference
    that the published distillation results belong to, and unlike the paper, a ReLU follows the
    3x3 convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.groups = 1 if in_channels == STEM else GROUPS
        if stride == 2:
            out_channels -= in_channels
        middle = out_channels // 4
        self.conv1, self.bn1 = conv_bn(in_channels, middle, 1, groups=self.groups)
        self.conv2, self.bn2 = conv_bn(middle, middle, 3, stride, groups=middle)
        self.conv3, self.bn3 = conv_bn(middle, out_channels, 1, groups=GROUPS)

    def forward(self, feature: Tensor) -> Tensor:
        """Halve the size at stride 2."""
        residual = shuffle_channels(F.relu(self.bn1(self.conv1(feature))), self.groups)
        residual = F.relu(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        if self.stride == 1:
            return residual + feature
        return torch.cat([residual, F.avg_pool2d(feature, 3, stride=2, padding=1)], 1)


@MODELS.register_module()
class ShuffleNetV1CIFAR(TappedNetwork):
    """ShuffleNetV1 (three groups) for 32x32 images: three stages of 16, 8 and 4 cells a side.

    Registered by name: ``shufflenetv1``. The stem is a 1x1 convolution at full size. Weights
    start from PyTorch's defaults, as in the reference that the published distillation results
    belong to.
    """

    def __init__(self) -> None:
        in_channels, stages = STEM, []
        for channels, count in COUNTS.items():
            stages.append(ReluStage([
                ShuffleUnit(channels if index else in_channels, channels, 1 if index else 2)
                for index in range(count)]))
            in_channels = channels
        super().__init__(nn.Sequential(*conv_bn(3, STEM, 1), nn.ReLU()), stages, in_channels)


register_name('shufflenetv1', ShuffleNetV1CIFAR)
