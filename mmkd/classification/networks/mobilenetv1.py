"""MobileNetV1 of ImageNet.

Howard et al. MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications.
2017 (arXiv 1704.04861).
"""

import torch.nn.functional as F
from torch import nn

from mmkd.classification.networks.base import ReluStage, TappedNetwork, conv_bn, register_name
from mmkd.registry import MODELS

__all__ = ['MobileNetV1ImageNet']

# Of each stage: channels and number of blocks.
COUNTS = {128: 2, 256: 2, 512: 6, 1024: 2}


def _separable(in_channels: int, out_channels: int, stride: int, relu6: bool) -> nn.Sequential:
    """A 3x3 convolution of each channel and a 1x1 convolution, up to the last ReLU."""
    return nn.Sequential(*conv_bn(in_channels, in_channels, 3, stride, groups=in_channels),
                         nn.ReLU6() if relu6 else nn.ReLU(),
                         *conv_bn(in_channels, out_channels, 1))


@MODELS.register_module()
class MobileNetV1ImageNet(TappedNetwork):
    """MobileNetV1 (1.0) for 224x224 images: four stages of strides 4, 8, 16 and 32.

    Registered by name: ``imagenet_mobilenetv1``. The stem is the first convolution and the first
    separable block. Weights start from PyTorch's defaults, as in the reference that the published
    distillation results belong to.

    Args:
        relu6: clip every ReLU at 6, as timm's weights were trained; the paper and the
            distillation literature do not. ``stageK`` then is ``preact`` clipped to 0 ... 6.
    """

    def __init__(self, relu6: bool = False) -> None:
        activation = F.relu6 if relu6 else F.relu
        stem = ReluStage([nn.Sequential(*conv_bn(3, 32, 3, stride=2)),
                          _separable(32, 64, 1, relu6)], activation)
        in_channels, stages = 64, []
        for channels, count in COUNTS.items():
            blocks = [_separable(channels if index else in_channels, channels, 1 if index else 2,
                                 relu6) for index in range(count)]
            stages.append(ReluStage(blocks, activation))
            in_channels = channels
        super().__init__(stem, stages, in_channels)
        self.relu6 = relu6


register_name('imagenet_mobilenetv1', MobileNetV1ImageNet)
