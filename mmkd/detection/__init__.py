"""CenterNet: the parts MMDetection lacks, VOC data, and the terms of its distillation."""

from mmkd.detection.centernet_head import CenterNetHead
from mmkd.detection.data import LoadImage, VOCLayoutDataset
from mmkd.detection.distill_hooks import (
    AttentionDistillHook,
    FeatureDistillHook,
    HeatmapDistillHook,
    OffsetDistillHook,
    WidthHeightDistillHook,
)
from mmkd.detection.hourglass import HourglassNet
from mmkd.ops import deform_layer  # registers a faster DCNv2 where mmcv's is not compiled

__all__ = ['AttentionDistillHook', 'CenterNetHead', 'FeatureDistillHook', 'HeatmapDistillHook',
           'HourglassNet', 'LoadImage', 'OffsetDistillHook', 'VOCLayoutDataset',
           'WidthHeightDistillHook', 'deform_layer']
