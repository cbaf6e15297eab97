# python tools/train.py configs/voc_animals/centernet_efficientnetb0.py \
#     --work-dir work_dirs/voc_animals/centernet_efficientnetb0
# python tools/test.py configs/voc_animals/centernet_efficientnetb0.py \
#     work_dirs/voc_animals/centernet_efficientnetb0/epoch_16.pth
# A student from scratch, with a higher rate and for longer than those with ImageNet weights.
_base_ = [
    '../_base_/models/narrow_efficientnetb0.py',
    '../_base_/datasets/voc_animals.py',
    '../_base_/schedules/small_8e.py',
    '../_base_/cpu_runtime.py',
]

model = dict(
    data_preprocessor=dict(pad_size_divisor={{_base_.image_size}}),
    bbox_head=dict(num_classes={{_base_.num_classes}}))
train_cfg = dict(max_epochs=16, val_interval=16)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], end=16)]
