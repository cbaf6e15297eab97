# python tools/train.py configs/voc_animals/centernet_mobilenetv2.py \
#     --work-dir work_dirs/voc_animals/centernet_mobilenetv2
# python tools/test.py configs/voc_animals/centernet_mobilenetv2.py \
#     work_dirs/voc_animals/centernet_mobilenetv2/epoch_8.pth
# The student, on the short schedule that two CPU cores bear.
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
    neck=dict(num_deconv_filters=(128, 64, 64)),
    bbox_head=dict(num_classes={{_base_.num_classes}}, in_channels=64, feat_channels=64))
optim_wrapper = dict(optimizer=dict(lr=5e-4))
train_cfg = dict(max_epochs=8, val_interval=8)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=8, eta_min=1e-6,
         convert_to_iter_based=True),
]
