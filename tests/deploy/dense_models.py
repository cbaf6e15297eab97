"""Tiny versions of MMDetection's own configs, with random weights that detect something."""

from pathlib import Path

import mmdet
import torch
from helpers import CLASSES
from mmengine.config import Config
from torch import nn

from mmkd.deploy.export.predictions import samples_of_sizes
from mmkd.distillation import build_model

SIZE = 64
CLASSIFYING = ('_cls', 'cls_branches')
R18 = dict(depth=18, base_channels=8, init_cfg=None)
FPN = dict(in_channels=[8, 16, 32, 64], out_channels=16)
HEAD = dict(num_classes=3, in_channels=16, feat_channels=32, stacked_convs=1)

# Proposals: as many as the NMS of the RPN chooses from, of each level and in all.
FEW = dict(rpn=dict(nms_pre=40, max_per_img=30))
STDS = (0.1, 0.1, 0.2, 0.2)
GROUPS = dict(type='GN', num_groups=8, requires_grad=True)


def _fpn(config, **head):
    return config, dict(backbone=R18, neck=FPN, bbox_head=HEAD | head)


def _detr(config, channels=(64,)):
    layers = dict(num_layers=1)
    return config, dict(backbone=R18, neck=dict(in_channels=list(channels)), num_queries=20,
                        encoder=layers, decoder=layers, bbox_head=dict(num_classes=3),
                        test_cfg=dict(max_per_img=12))


MODELS = dict(
    retinanet=_fpn('retinanet/retinanet_r50_fpn_1x_coco.py'),
    fcos=_fpn('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', norm_cfg=GROUPS),
    atss=_fpn('atss/atss_r50_fpn_1x_coco.py', norm_cfg=GROUPS),
    gfl=_fpn('gfl/gfl_r50_fpn_1x_coco.py', norm_cfg=GROUPS),
    fsaf=_fpn('fsaf/fsaf_r50_fpn_1x_coco.py'),
    paa=_fpn('paa/paa_r50_fpn_1x_coco.py', norm_cfg=GROUPS),
    vfnet=_fpn('vfnet/vfnet_r50_fpn_1x_coco.py', norm_cfg=GROUPS),
    ddod=_fpn('ddod/ddod_r50_fpn_1x_coco.py', norm_cfg=GROUPS),
    tood=_fpn('tood/tood_r50_fpn_1x_coco.py', stacked_convs=2, norm_cfg=GROUPS),
    reppoints=_fpn('reppoints/reppoints-moment_r50_fpn_1x_coco.py', point_feat_channels=32),
    foveabox=_fpn('foveabox/fovea_r50_fpn_4xb4-1x_coco.py'),
    autoassign=_fpn('autoassign/autoassign_r50-caffe_fpn_1x_coco.py', norm_cfg=GROUPS),
    yolof=('yolof/yolof_r50-c5_8xb8-1x_coco.py', dict(
        backbone=R18, neck=dict(in_channels=64, out_channels=32, block_mid_channels=16),
        bbox_head=dict(num_classes=3, in_channels=32))),
    yolov3=('yolo/yolov3_mobilenetv2_8xb24-ms-416-300e_coco.py', dict(
        backbone=dict(widen_factor=0.25, init_cfg=None),
        neck=dict(in_channels=[80, 24, 8], out_channels=[16, 16, 16]),
        bbox_head=dict(num_classes=3, in_channels=[16, 16, 16], out_channels=[16, 16, 16]))),
    centernet_update=_fpn('centernet/centernet-update_r50_fpn_8xb8-amp-lsj-200e_coco.py',
                          norm_cfg=GROUPS),
    free_anchor=_fpn('free_anchor/freeanchor_r50_fpn_1x_coco.py'),
    rtmdet=('rtmdet/rtmdet_tiny_8xb32-300e_coco.py', dict(
        backbone=dict(widen_factor=0.125, init_cfg=None),
        neck=dict(in_channels=[32, 64, 128], out_channels=16), bbox_head=HEAD)),
    yolox=('yolox/yolox_tiny_8xb8-300e_coco.py', dict(
        backbone=dict(widen_factor=0.125), neck=dict(in_channels=[32, 64, 128], out_channels=16),
        bbox_head=HEAD)),
    detr=_detr('detr/detr_r50_8xb2-150e_coco.py'),
    conditional_detr=_detr('conditional_detr/conditional-detr_r50_8xb2-50e_coco.py'),
    dab_detr=_detr('dab_detr/dab-detr_r50_8xb2-50e_coco.py'),
    deformable_detr=_detr('deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
                          channels=[16, 32, 64]),
    dino=_detr('dino/dino-4scale_r50_8xb2-12e_coco.py', channels=[16, 32, 64]),
    ddq=_detr('ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py', channels=[16, 32, 64]),
    cascade_rcnn=('cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py', dict(
        backbone=R18, neck=FPN, rpn_head=dict(in_channels=16, feat_channels=16),
        roi_head=dict(bbox_roi_extractor=dict(out_channels=16), bbox_head=[dict(
            type='Shared2FCBBoxHead', num_classes=3, in_channels=16, fc_out_channels=16,
            reg_class_agnostic=True, bbox_coder=dict(
                type='DeltaXYWHBBoxCoder', target_stds=[part / stage for part in STDS]))
            for stage in (1, 2, 3)]), test_cfg=FEW)),
    faster_rcnn=('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', dict(
        backbone=R18, neck=FPN, rpn_head=dict(in_channels=16, feat_channels=16),
        roi_head=dict(bbox_roi_extractor=dict(out_channels=16), bbox_head=dict(
            num_classes=3, in_channels=16, fc_out_channels=16)), test_cfg=FEW)),
)


def config(name):
    """The config of a tiny detector."""
    path, model = MODELS[name]
    cfg = Config.fromfile(Path(mmdet.__file__).parent / '.mim/configs' / path)
    cfg.merge_from_dict(dict(model=model, default_scope='mmdet'))
    dataset = cfg.test_dataloader.dataset
    dataset.metainfo = dict(classes=CLASSES)
    for step in dataset.pipeline:
        if step.type == 'Resize':
            step.scale = (SIZE, SIZE)
        elif step.type == 'Pad' and 'size' in step:
            step.size = (SIZE, SIZE)
    if all(step.type != 'Pad' for step in dataset.pipeline):
        cfg.model.data_preprocessor.pad_size_divisor = SIZE
    return cfg


def lively(cfg, mean=-4.0):
    """Build the model of a config; its logits get this mean and a deviation of 1.5 on noise.

    So some places score above the threshold. Boxes differ from place to place, too.
    """
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    for name, parameter in model.named_parameters():
        if name.endswith('level_embed'):  # whatever lay in memory, until init_weights is called
            nn.init.normal_(parameter)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
    model.cfg, model.dataset_meta = cfg, dict(classes=CLASSES)
    layers = [module for name, module in heads_of(model) if name.endswith(CLASSIFYING)]
    boxes = [module for name, module in heads_of(model) if name.endswith('_reg')
             and (isinstance(module, nn.Conv2d) or hasattr(model, 'roi_head'))]
    with torch.no_grad():
        for layer in layers + boxes:
            outputs = []
            hook = layer.register_forward_hook(
                lambda *call, outputs=outputs: outputs.append(call[-1].flatten()))
            noise = torch.randn(2, 3, SIZE, SIZE)
            if not model.data_preprocessor._enable_normalize:
                noise = 128 + 60 * noise
            predict_maps(model, model.extract_feat(noise))
            hook.remove()
            # GFL's distances are means of distributions: only clear ones differ.
            others = 4.0 if hasattr(getattr(model, 'bbox_head', None), 'integral') else 0.5
            layer.weight.mul_((1.5 if layer in layers else others) / torch.cat(outputs).std())
            if layer in layers:
                layer.bias.fill_(mean)
                if isinstance(layer, nn.Linear) and hasattr(model, 'roi_head'):
                    # All classes as likely as another, and background a bit more.
                    layer.bias[-1] += 2.0
    return model


def heads_of(model):
    """The layers of all heads that may give classes or boxes, by the name of the branch."""
    heads = [model.bbox_head] if hasattr(model, 'bbox_head') else []
    if hasattr(model, 'roi_head'):
        own = model.roi_head.bbox_head
        heads = [model.rpn_head, *(own if isinstance(own, nn.ModuleList) else [own])]
    return [(name.split('.')[0], module) for head in heads for name, module in head.named_modules()
            if isinstance(module, nn.Conv2d | nn.Linear)]


def predict_maps(model, feats):
    """Run what comes after the features."""
    samples = samples_of_sizes([(SIZE, SIZE)] * 2, (SIZE, SIZE))
    if hasattr(model, 'roi_head'):
        return model.roi_head.predict(feats, model.rpn_head.predict(feats, samples), samples)
    if hasattr(model, 'forward_transformer'):
        return model.bbox_head(**model.forward_transformer(feats, samples))
    return model.bbox_head(feats)
