# python tools/train.py configs/voc_animals/centernet_mobilenetv2_wide.py \
#     --work-dir work_dirs/voc_animals/centernet_mobilenetv2_wide
# python tools/test.py configs/voc_animals/centernet_mobilenetv2_wide.py \
#     work_dirs/voc_animals/centernet_mobilenetv2_wide/epoch_30.pth
# A teacher: MobileNetV2, wide behind the backbone.
_base_ = [
    '../_base_/models/centernet_mobilenetv2.py',
    '../_base_/datasets/voc_animals.py',
    '../_base_/schedules/small_24e.py',
    '../_base_/default_runtime.py',
]

amp = 'auto'
channels_last = True
model = dict(
    data_preprocessor=dict(pad_size_divisor={{_base_.image_size}}),
    neck=dict(num_deconv_filters=(256, 128, 96)),
    bbox_head=dict(num_classes={{_base_.num_classes}}, in_channels=96, feat_channels=96))
optim_wrapper = dict(optimizer=dict(lr=5e-4))
train_cfg = dict(max_epochs=30, val_interval=15)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=30, eta_min=1e-6,
         convert_to_iter_based=True),
]
