# python tools/train.py configs/voc_animals/retinanet_r18_wide.py \
#     --work-dir work_dirs/voc_animals/retinanet_r18_wide
# python tools/test.py configs/voc_animals/retinanet_r18_wide.py \
#     work_dirs/voc_animals/retinanet_r18_wide/epoch_30.pth
# A teacher: the backbone of centernet_r18_wide.py, a pyramid of strides 8, 16 and 32, a wide head.
_base_ = './centernet_r18_wide.py'

strides = [8, 16, 32]
model = dict(
    _delete_=True,
    type='RetinaNet',
    data_preprocessor={{_base_.model.data_preprocessor}},
    backbone=dict(
        type='ResNet', depth=18, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1),
        out_indices=(1, 2), norm_eval=False,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.pytorch.org/models/resnet18-f37072fd.pth')),
    neck=dict(
        type='FPN', in_channels=[128, 256], out_channels=128, norm_cfg=dict(type='BN'),
        num_outs=3),
    bbox_head=dict(
        type='RetinaHead', num_classes={{_base_.num_classes}}, in_channels=128, feat_channels=128,
        stacked_convs=3, norm_cfg=dict(type='GN', num_groups=8),
        anchor_generator=dict(
            type='AnchorGenerator', octave_base_scale=4, scales_per_octave=3,
            ratios=[0.5, 1.0, 2.0], strides=strides),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
        loss_cls=dict(
            type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type='L1Loss', loss_weight=1.0)),
    train_cfg=dict(
        assigner=dict(
            type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0,
            ignore_iof_thr=-1),
        sampler=dict(type='PseudoSampler'), allowed_border=-1, pos_weight=-1, debug=False),
    test_cfg=dict(
        nms_pre=1000, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5),
        max_per_img=100))
