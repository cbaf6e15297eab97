"""How well a detector finds what is there: PASCAL VOC average precision, and COCO's."""

from mmkd.evaluation.coco_metric import CocoMetric
from mmkd.evaluation.voc_map import (
    ClassResult,
    Detections,
    Objects,
    average_precision_11points,
    average_precision_area,
    mean_average_precision,
    voc_average_precision,
)
from mmkd.evaluation.voc_metric import VOCMeanAPMetric

__all__ = [
    'ClassResult',
    'CocoMetric',
    'Detections',
    'Objects',
    'VOCMeanAPMetric',
    'average_precision_11points',
    'average_precision_area',
    'mean_average_precision',
    'voc_average_precision',
]
