"""CenterNet: the parts MMDetection lacks; VOC data; the terms of detectors' distillation."""

from mmkd.detection import _imports as _imports  # before anything of mmdet
from mmkd.detection import facts
from mmkd.detection.backbone_alone import BackboneAlone
from mmkd.detection.centernet_head import CenterNetHead
from mmkd.detection.data import LoadImage, VOCLayoutDataset
from mmkd.detection.dense_terms import CrossKDTerm, DenseTerm
from mmkd.detection.detr_terms import DETRFeatureTerm, DETRQueryTerm, DETRTerm, KDDETRTerm
from mmkd.detection.hourglass import HourglassNet
from mmkd.detection.mobilenet import MobileNetV2
from mmkd.detection.proposal_term import ProposalTerm
from mmkd.detection.score_term import ScoreTerm
from mmkd.detection.ssd_head import SSDHead
from mmkd.detection.terms import CenterNetTerm, FeatureTerm
from mmkd.detection.timm_backbone import TimmBackbone
from mmkd.ops import deform_layer  # registers a faster DCNv2 where mmcv's is not compiled

__all__ = ['BackboneAlone', 'CenterNetHead', 'CenterNetTerm', 'CrossKDTerm', 'DETRFeatureTerm',
           'DETRQueryTerm', 'DETRTerm', 'DenseTerm', 'FeatureTerm', 'HourglassNet', 'KDDETRTerm',
           'LoadImage', 'MobileNetV2', 'ProposalTerm', 'SSDHead', 'ScoreTerm', 'TimmBackbone',
           'VOCLayoutDataset', 'deform_layer', 'facts']
