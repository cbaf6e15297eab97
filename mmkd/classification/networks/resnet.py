"""ResNets of CIFAR and of ImageNet.

He, Zhang, Ren, Sun. Deep Residual Learning for Image Recognition. CVPR 2016 (arXiv 1512.03385).
"""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from mmkd.classification.networks.base import (
    ReluStage,
    TappedNetwork,
    conv_bn,
    init_convolutions,
    register_name,
)
from mmkd.errors import UserError
from mmkd.registry import MODELS

__all__ = ['ResNetCIFAR', 'ResNetImageNet']

Shortcut = Callable[[int, int, int], nn.Module]
"""Makes a shortcut from channels before and after, and the stride."""


class PaddedShortcut(nn.Module):
    """Every second row and column, and as many channels of zeros before as after those there are.

    "Option A" of the paper, section 4.2: a shortcut without parameters.

    Args:
        in_channels: at most ``out_channels``, by an even number.
        out_channels: of the block.
        stride: 1 or 2.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.zeros = (out_channels - in_channels) // 2

    def forward(self, feature: Tensor) -> Tensor:
        """Bring the feature map to the shape that the block gives."""
        feature = feature[:, :, ::self.stride, ::self.stride]
        return F.pad(feature, (0, 0, 0, 0, self.zeros, self.zeros))


def _projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(*conv_bn(in_channels, out_channels, 1, stride))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, up to the sum; the last ReLU is the stage's."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv_bn(in_channels, channels, 3, stride)
        self.conv2, self.bn2 = conv_bn(channels, channels, 3)
        self.shortcut = _shortcut(in_channels, channels, stride, shortcut)

    def forward(self, feature: Tensor) -> Tensor:
        """Halve the size at stride 2."""
        residual = F.relu(self.bn1(self.conv1(feature)))
        return self.bn2(self.conv2(residual)) + self.shortcut(feature)


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolution beside a shortcut, up to the sum."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv_bn(in_channels, channels, 1)
        self.conv2, self.bn2 = conv_bn(channels, channels, 3, stride)
        self.conv3, self.bn3 = conv_bn(channels, 4 * channels, 1)
        self.shortcut = _shortcut(in_channels, 4 * channels, stride, shortcut)

    def forward(self, feature: Tensor) -> Tensor:
        """Halve the size at stride 2."""
        residual = F.relu(self.bn1(self.conv1(feature)))
        residual = F.relu(self.bn2(self.conv2(residual)))
        return self.bn3(self.conv3(residual)) + self.shortcut(feature)


SHORTCUTS: dict[str, Shortcut] = dict(A=PaddedShortcut, B=_projection)
# Of each ResNet for large images: its block, and how many of them each stage has.
DEPTHS = {18: (BasicBlock, (2, 2, 2, 2)), 34: (BasicBlock, (3, 4, 6, 3)),
          50: (Bottleneck, (3, 4, 6, 3))}


def _shortcut(in_channels: int, out_channels: int, stride: int, shortcut: Shortcut) -> nn.Module:
    """Return a shortcut that changes the shape where the block does, else nothing."""
    if stride == 1 and in_channels == out_channels:
        return nn.Sequential()
    return shortcut(in_channels, out_channels, stride)


def _stages(block: type[BasicBlock | Bottleneck], in_channels: int, channels: Sequence[int],
            counts: Sequence[int], shortcut: Shortcut = _projection) -> list[ReluStage]:
    """Stack blocks; every stage but the first halves the size."""
    stages = []
    for number, (width, count) in enumerate(zip(channels, counts, strict=True)):
        blocks = []
        for index in range(count):
            blocks.append(block(in_channels, width, 2 if number and not index else 1, shortcut))
            in_channels = width * block.expansion
        stages.append(ReluStage(blocks))
    return stages


@MODELS.register_module()
class ResNetCIFAR(TappedNetwork):
    """ResNet for 32x32 images: three stages of 32x32, 16x16 and 8x8 cells.

    Registered by name: ``resnet8``, ``14``, ``20``, ``32``, ``44``, ``56``, ``110``;
    ``resnet8x4`` and ``resnet32x4``; ``resnet20_option_a``, ``32``, ``44``, ``56``, ``110``.

    Args:
        depth: ``6n + 2`` layers with basic blocks.
        width: factor of the 16, 32 and 64 channels of the stages. The stem has 16, and 32 at width
            4: the "x4" networks of the literature double theirs only.
        option: what the shortcut is where a stage widens, as the paper calls it: ``'B'``, a
            projection, as in the networks that the distillation literature compares; or ``'A'``,
            the paper's own for CIFAR, :class:`PaddedShortcut`.

    Raises:
        UserError: there is no network of that depth, or no such option.
    """

    def __init__(self, depth: int, width: int = 1, option: str = 'B') -> None:
        if depth < 8 or depth % 6 != 2:
            raise UserError(f'ResNetCIFAR has no depth {depth}: give 6n + 2, such as 20, 32 or 56')
        if option not in SHORTCUTS:
            raise UserError(f"ResNetCIFAR has no option {option!r}: give 'A' or 'B'")
        stem = max(16, 8 * width)
        stages = _stages(BasicBlock, stem, [16 * width, 32 * width, 64 * width],
                         [(depth - 2) // 6] * 3, SHORTCUTS[option])
        super().__init__(nn.Sequential(*conv_bn(3, stem, 3), nn.ReLU()), stages, 64 * width)
        init_convolutions(self)


@MODELS.register_module()
class ResNetImageNet(TappedNetwork):
    """ResNet for 224x224 images: four stages of strides 4, 8, 16 and 32.

    Registered by name: ``imagenet_resnet18``, ``imagenet_resnet34``, ``imagenet_resnet50``, and
    with small images ``resnet18_cifar``, ``resnet34_cifar``, ``resnet50_cifar``. A bottleneck's
    stride is at its 3x3 convolution.

    Args:
        depth: 18, 34 or 50.
        small_images: a 3x3 stem without stride and pooling, for 32x32 images.

    Raises:
        UserError: there is no network of that depth.
    """

    def __init__(self, depth: int, small_images: bool = False) -> None:
        if depth not in DEPTHS:
            raise UserError(f'ResNetImageNet has no depth {depth}: give one of '
                            f'{", ".join(map(str, DEPTHS))}')
        block, counts = DEPTHS[depth]
        stem = [*(conv_bn(3, 64, 3) if small_images else conv_bn(3, 64, 7, stride=2)), nn.ReLU()]
        if not small_images:
            stem.append(nn.MaxPool2d(3, stride=2, padding=1))
        super().__init__(nn.Sequential(*stem), _stages(block, 64, [64, 128, 256, 512], counts),
                         512 * block.expansion)
        init_convolutions(self)


for _depth in (8, 14, 20, 32, 44, 56, 110):
    register_name(f'resnet{_depth}', ResNetCIFAR, depth=_depth)
for _depth in (20, 32, 44, 56, 110):
    register_name(f'resnet{_depth}_option_a', ResNetCIFAR, depth=_depth, option='A')
for _depth in (8, 32):
    register_name(f'resnet{_depth}x4', ResNetCIFAR, depth=_depth, width=4)
for _depth in DEPTHS:
    register_name(f'imagenet_resnet{_depth}', ResNetImageNet, depth=_depth)
    register_name(f'resnet{_depth}_cifar', ResNetImageNet, depth=_depth, small_images=True)
