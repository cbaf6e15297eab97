# python tools/train.py configs/voc_animals/retinanet_r18.py \
#     --work-dir work_dirs/voc_animals/retinanet_r18
# python tools/test.py configs/voc_animals/retinanet_r18.py \
#     work_dirs/voc_animals/retinanet_r18/epoch_8.pth
# A student: the same backbone, a narrow pyramid and head, as long as the other students.
_base_ = './retinanet_r18_wide.py'

model = dict(
    neck=dict(out_channels=48),
    bbox_head=dict(in_channels=48, feat_channels=48, stacked_convs=2))
train_cfg = dict(max_epochs=8, val_interval=8)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], end=8)]
