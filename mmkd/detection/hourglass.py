"""MMDetection's hourglass backbone, made trainable by several processes with one stack."""

from typing import Any

from mmdet.models.backbones import HourglassNet as MMDetHourglassNet

from mmkd.registry import MODELS

__all__ = ['HourglassNet']


@MODELS.register_module()
class HourglassNet(MMDetHourglassNet):
    """Stacked hourglasses: one is Hourglass-52, two are Hourglass-104.

    Alejandro Newell, Kaiyu Yang, Jia Deng: Stacked Hourglass Networks for Human Pose Estimation,
    ECCV 2016, arXiv:1603.06937.

    MMDetection builds the block that joins two stacks even where there is only one.
    DistributedDataParallel stops on parameters that get no gradient, so that block is frozen.
    It stays in the checkpoint, which is interchangeable with MMDetection's.

    Args:
        *args: What MMDetection's class takes.
        **kwargs: What MMDetection's class takes.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.num_stacks == 1:
            self.inters.requires_grad_(False)
