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
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], end=8)]
