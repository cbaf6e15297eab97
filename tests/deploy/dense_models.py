"""Tiny versions of MMDetection's own configs, with random weights that detect something."""

from pathlib import Path

import mmdet
import torch
from helpers import CLASSES
from mmengine.config import Config
from torch import nn

from mmkd.distillation import build_model

SIZE = 64
R18 = dict(depth=18, base_channels=8, init_cfg=None)
FPN = dict(in_channels=[8, 16, 32, 64], out_channels=16)
HEAD = dict(num_classes=3, in_channels=16, feat_channels=32, stacked_convs=1)

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
    faster_rcnn=('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', dict(
        backbone=R18, neck=FPN, rpn_head=dict(in_channels=16, feat_channels=16),
        roi_head=dict(bbox_roi_extractor=dict(out_channels=16), bbox_head=dict(
            num_classes=3, in_channels=16, fc_out_channels=16)))),
)


def config(name, size=SIZE, scope='mmdet'):
    """The config of a tiny detector for inputs of ``size`` x ``size`` pixels."""
    path, model = MODELS[name]
    cfg = Config.fromfile(Path(mmdet.__file__).parent / '.mim/configs' / path)
    cfg.merge_from_dict(dict(model=model, default_scope=scope))
    dataset = cfg.test_dataloader.dataset
    dataset.metainfo = dict(classes=CLASSES)
    padded = False
    for step in dataset.pipeline:
        if step.type == 'Resize':
            step.scale = (size, size)
        elif step.type == 'Pad':
            padded = True
            if 'size' in step:
                step.size = (size, size)
    if not padded:
        cfg.model.data_preprocessor.pad_size_divisor = size
    return cfg


def lively(cfg, mean=-4.0, deviation=1.5):
    """Build the model of a config; its logits get this mean and deviation on noise.

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
    head = getattr(model, 'bbox_head', None)
    layers = [module for name, module in head.named_modules()
              if name.split('.')[0].endswith(('_cls', 'cls_branches')) and
              isinstance(module, nn.Conv2d | nn.Linear)] if head else []
    boxes = [module for name, module in head.named_modules()
             if name.split('.')[0].endswith('_reg') and isinstance(module, nn.Conv2d)] \
        if head else []
    with torch.no_grad():
        for layer in layers + boxes:
            outputs = []
            hook = layer.register_forward_hook(
                lambda *call, outputs=outputs: outputs.append(call[-1].flatten()))
            noise = torch.randn(2, 3, SIZE, SIZE)
            if not model.data_preprocessor._enable_normalize:
                noise = 128 + 60 * noise
            feats = model.extract_feat(noise)
            predict_maps(model, feats)
            hook.remove()
            # GFL's distances are means of distributions: only clear ones differ.
            others = 4.0 if hasattr(head, 'integral') else 0.5
            factor = (deviation if layer in layers else others) / torch.cat(outputs).std()
            layer.weight.mul_(factor)
            if layer in layers:
                layer.bias.fill_(mean)
    return model


def predict_maps(model, feats):
    """Run what comes after the features."""
    if hasattr(model, 'forward_transformer'):
        from mmkd.deploy.predictions import samples_of_sizes
        samples = samples_of_sizes([(SIZE, SIZE)] * 2, (SIZE, SIZE))
        return model.bbox_head(**model.forward_transformer(feats, samples))
    return model.bbox_head(feats)
