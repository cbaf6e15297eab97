# python tools/train.py configs/voc_animals/centernet_r18.py \
#     --work-dir work_dirs/voc_animals/centernet_r18
# python tools/test.py configs/voc_animals/centernet_r18.py \
#     work_dirs/voc_animals/centernet_r18/epoch_8.pth
# A student: ResNet-18 without its last stage, so that stride 16 stays, narrow behind it.
_base_ = './centernet_r18_wide.py'

model = dict(
    neck=dict(num_deconv_filters=(64, 64)),
    bbox_head=dict(in_channels=64, feat_channels=64))
train_cfg = dict(max_epochs=8, val_interval=8)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=8, eta_min=1e-6,
         convert_to_iter_based=True),
]
