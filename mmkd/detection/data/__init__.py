"""Detection data: VOC-layout sets, loading, checking and a drawn set."""

from mmkd.detection.data.check import check_voc, extract_voc, split_voc
from mmkd.detection.data.coco import CocoDataset
from mmkd.detection.data.drawing import DRAWN_CLASSES
from mmkd.detection.data.fast_augment import (
    FastPackDetInputs,
    FastPhotoMetricDistortion,
    FastRandomCenterCropPad,
    FastRandomFlip,
)
from mmkd.detection.data.loading import LoadImage
from mmkd.detection.data.plain_augment import lacking, use_plain_transforms
from mmkd.detection.data.synthetic import draw_dataset
from mmkd.detection.data.unlabelled import UnlabelledImages
from mmkd.detection.data.voc import VOCLayoutDataset

__all__ = ['DRAWN_CLASSES', 'CocoDataset', 'FastPackDetInputs', 'FastPhotoMetricDistortion',
           'FastRandomCenterCropPad', 'FastRandomFlip', 'LoadImage', 'UnlabelledImages',
           'VOCLayoutDataset', 'check_voc', 'draw_dataset', 'extract_voc', 'split_voc']

if lacking():
    use_plain_transforms()
