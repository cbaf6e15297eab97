# python tools/train.py configs/bccd_small/centernet_efficientnetb0.py \
#     --work-dir work_dirs/bccd_small/centernet_efficientnetb0
# python tools/test.py configs/bccd_small/centernet_efficientnetb0.py \
#     work_dirs/bccd_small/centernet_efficientnetb0/epoch_24.pth
_base_ = [
    '../_base_/models/narrow_efficientnetb0.py',
    '../_base_/datasets/bccd_small.py',
    '../_base_/schedules/small_24e.py',
    '../_base_/cpu_runtime.py',
]

model = dict(
    data_preprocessor=dict(pad_size_divisor={{_base_.image_size}}),
    bbox_head=dict(num_classes={{_base_.num_classes}}))
