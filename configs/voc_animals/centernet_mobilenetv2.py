# python tools/train.py configs/voc_animals/centernet_mobilenetv2.py \
#     --work-dir work_dirs/voc_animals/centernet_mobilenetv2
# python tools/test.py configs/voc_animals/centernet_mobilenetv2.py \
#     work_dirs/voc_animals/centernet_mobilenetv2/epoch_8.pth
# The student, on the short schedule that two CPU cores bear.
_base_ = './centernet_mobilenetv2_wide.py'

model = dict(
    neck=dict(num_deconv_filters=(128, 64, 64)),
    bbox_head=dict(in_channels=64, feat_channels=64))
train_cfg = dict(max_epochs=8, val_interval=8)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], end=8)]
