"""MMDetection's own detectors, made small enough to train two steps on a CPU."""

import copy

import torch
from mmengine.config import Config

from mmkd.config_files import config_path
from mmkd.engine.data_root import use_number_of_classes
from mmkd.registry import MODELS

CLASSES = 3
CONFIGS = {
    'RetinaNet': 'retinanet/retinanet_r18_fpn_1x_coco',
    'FCOS': 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco',
    'ATSS': 'atss/atss_r50_fpn_1x_coco',
    'GFL': 'gfl/gfl_r50_fpn_1x_coco',
    'PAA': 'paa/paa_r50_fpn_1x_coco',
    'AutoAssign': 'autoassign/autoassign_r50-caffe_fpn_1x_coco',
    'FoveaBox': 'foveabox/fovea_r50_fpn_4xb4-1x_coco',
    'FSAF': 'fsaf/fsaf_r50_fpn_1x_coco',
    'RTMDet': 'rtmdet/rtmdet_tiny_8xb32-300e_coco',
    'YOLOX': 'yolox/yolox_tiny_8xb8-300e_coco',
    'YOLOv3': 'yolo/yolov3_mobilenetv2_8xb24-ms-416-300e_coco',
    'YOLOF': 'yolof/yolof_r50-c5_8xb8-1x_coco',
    'VFNet': 'vfnet/vfnet_r50_fpn_1x_coco',
    'DDOD': 'ddod/ddod_r50_fpn_1x_coco',
    'TOOD': 'tood/tood_r50_fpn_1x_coco',
    'RepPoints': 'reppoints/reppoints-moment_r50_fpn_1x_coco',
    'CornerNet': 'cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco',
    'CenterNet': 'centernet/centernet_r18_8xb16-crop512-140e_coco',
    'CenterNet-update': 'centernet/centernet-update_r18_fpn_8xb8-amp-lsj-200e_coco',
    'Faster R-CNN': 'faster_rcnn/faster-rcnn_r18_fpn_8xb8-amp-lsj-200e_coco',
    'Cascade R-CNN': 'cascade_rcnn/cascade-rcnn_r18_fpn_8xb8-amp-lsj-200e_coco',
    'Mask R-CNN': 'mask_rcnn/mask-rcnn_r18_fpn_8xb8-amp-lsj-200e_coco',
    'Sparse R-CNN': 'sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco',
    'SOLOv2': 'solov2/solov2-light_r18_fpn_ms-3x_coco',
    'RTMDet-Ins': 'rtmdet/rtmdet-ins_tiny_8xb32-300e_coco',
    'DETR': 'detr/detr_r18_8xb2-500e_coco',
    'Conditional DETR': 'conditional_detr/conditional-detr_r50_8xb2-50e_coco',
    'DAB-DETR': 'dab_detr/dab-detr_r50_8xb2-50e_coco',
    'Deformable DETR': 'deformable_detr/deformable-detr_r50_16xb2-50e_coco',
    'DINO': 'dino/dino-4scale_r50_8xb2-12e_coco',
    'DDQ': 'ddq/ddq-detr-4scale_r50_8xb2-12e_coco',
    'Mask2Former': 'mask2former/mask2former_r50_8xb2-lsj-50e_coco',
    'SSD': 'ssd/ssd300_coco',
}
NEEDS_MASKS = ('Mask R-CNN', 'SOLOv2', 'RTMDet-Ins', 'Mask2Former')
SIZES = {'SSD': 300}
"""In pixels, of detectors that need more than the tests' images have."""


def model(name):
    """The config of a detector's model: ResNet-18 for ResNet-50, few queries, three classes."""
    cfg = Config.fromfile(config_path(f'mmdet::{CONFIGS[name]}')).model
    _forget_weights(cfg)
    cfg.data_preprocessor.pop('batch_augments', None)  # some pad to 1024 pixels
    if cfg.data_preprocessor.get('std') == [1, 1, 1]:  # for Caffe's weights
        cfg.data_preprocessor.std = [58.395, 57.12, 57.375]
    if cfg.backbone.get('depth') in (50, 101) and cfg.backbone.type == 'ResNet':
        _as_resnet18(cfg)
    if cfg.backbone.type == 'HourglassNet':
        cfg.backbone.stage_channels = [32] * len(cfg.backbone.stage_channels)
    if 'num_queries' in cfg:
        cfg.num_queries = 20
        (cfg.get('test_cfg') or {}).update(max_per_img=10)
    use_number_of_classes(cfg, CLASSES)
    return cfg


def build(cfg, seed=0):
    """Build a detector with its own first weights, whose heads tell classes and boxes apart."""
    torch.manual_seed(seed)
    network = MODELS.build(copy.deepcopy(cfg))  # some detectors write into their config
    network.init_weights()
    for part, parameter in network.named_parameters():
        if part.startswith(('bbox_head', 'roi_head')) and parameter.dim() > 1:
            torch.nn.init.kaiming_normal_(parameter)
    return network


def _as_resnet18(cfg):
    cfg.backbone.update(depth=18, style='pytorch')
    cfg.backbone.pop('dcn', None)
    for part in ('neck', 'bbox_head', 'panoptic_head'):
        channels = (cfg.get(part) or {}).get('in_channels')
        if isinstance(channels, list):
            cfg[part].in_channels = [count // 4 if count in (256, 512, 1024, 2048) else count
                                     for count in channels]
        elif part == 'neck' and channels in (512, 1024, 2048):
            cfg[part].in_channels = channels // 4


def _forget_weights(node):
    if isinstance(node, dict):
        if isinstance(node.get('init_cfg'), dict) and node['init_cfg'].get('type') == 'Pretrained':
            node['init_cfg'] = None
        for value in node.values():
            _forget_weights(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            _forget_weights(value)
