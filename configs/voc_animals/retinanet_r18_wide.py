# python tools/train.py configs/voc_animals/retinanet_r18_wide.py \
#     --work-dir work_dirs/voc_animals/retinanet_r18_wide
# python tools/test.py configs/voc_animals/retinanet_r18_wide.py \
#     work_dirs/voc_animals/retinanet_r18_wide/epoch_30.pth
# A teacher: the backbone of centernet_r18_wide.py, a pyramid of strides 8, 16 and 32, a wide head.
_base_ = [
    '../_base_/models/narrow_retinanet_r18.py',
    '../_base_/datasets/voc_animals.py',
    '../_base_/schedules/pretrained_30e.py',
    '../_base_/cpu_runtime.py',
]

model = dict(
    data_preprocessor=dict(pad_size_divisor={{_base_.image_size}}),
    backbone=dict(
        base_channels=64, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(1, 2),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.pytorch.org/models/resnet18-f37072fd.pth')),
    neck=dict(in_channels=[128, 256], out_channels=128, num_outs=3),
    bbox_head=dict(
        num_classes={{_base_.num_classes}}, in_channels=128, feat_channels=128, stacked_convs=3,
        anchor_generator=dict(
            octave_base_scale=4, scales_per_octave=3, ratios=[0.5, 1.0, 2.0], strides=[8, 16, 32])))
