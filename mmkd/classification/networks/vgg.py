"""VGG of CIFAR, with batch norm and a single linear layer behind the pooling.

Simonyan, Zisserman. Very Deep Convolutional Networks for Large-Scale Image Recognition. ICLR 2015
(arXiv 1409.1556).
"""

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

__all__ = ['VGGCIFAR']

COARSEST = 4
# Of the stem and the stages: channels, and for each depth the number of convolutions.
CHANNELS = (64, 128, 256, 512, 512)
COUNTS = {8: (1, 1, 1, 1, 1), 11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3),
          19: (2, 2, 4, 4, 4)}


class PooledStage(ReluStage):
    """Halve the size by max pooling, unless it is down to 4 cells, then convolve."""

    def forward(self, feature: Tensor) -> Tensor:
        """Return the feature map after the last ReLU."""
        if feature.shape[-1] > COARSEST:
            feature = F.max_pool2d(feature, 2)
        return super().forward(feature)


@MODELS.register_module()
class VGGCIFAR(TappedNetwork):
    """VGG for 32x32 and 64x64 images: a stem and four stages, each of 3x3 convolutions.

    Registered by name: ``vgg8``, ``vgg11``, ``vgg13``, ``vgg16``, ``vgg19``. At 32x32 the maps
    have 32 (stem), 16, 8, 4 and 4 cells a side; at 64x64 there are 64, 32, 16, 8 and 4.

    Args:
        depth: 8, 11, 13, 16 or 19.

    Raises:
        UserError: there is no network of that depth.
    """

    def __init__(self, depth: int) -> None:
        if depth not in COUNTS:
            raise UserError(f'VGGCIFAR has no depth {depth}: give one of '
                            f'{", ".join(map(str, COUNTS))}')
        in_channels, groups = 3, []
        for channels, count in zip(CHANNELS, COUNTS[depth], strict=True):
            groups.append([nn.Sequential(*conv_bn(channels if index else in_channels, channels, 3,
                                                  bias=True)) for index in range(count)])
            in_channels = channels
        super().__init__(ReluStage(groups[0]), [PooledStage(group) for group in groups[1:]],
                         CHANNELS[-1])
        init_convolutions(self)


for _depth in COUNTS:
    register_name(f'vgg{_depth}', VGGCIFAR, depth=_depth)
