"""SSD's head: MMDetection's, able to predict."""

from mmdet.models.dense_heads import SSDHead as MMDetSSDHead

from mmkd.registry import MODELS

__all__ = ['SSDHead']


@MODELS.register_module()
class SSDHead(MMDetSSDHead):
    """Predict boxes and classes from each level of SSD's pyramid.

    MMDetection 3.5.1 asks every head's ``loss_cls``, in prediction, how scores become
    probabilities; SSD's head works its loss out by itself and has none. That there is none means
    the softmax that SSD is trained with.

    Args: as of MMDetection's.
    """

    loss_cls = None
