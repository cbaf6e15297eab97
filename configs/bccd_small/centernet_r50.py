# python tools/train.py configs/bccd_small/centernet_r50.py \
#     --work-dir work_dirs/bccd_small/centernet_r50
# python tools/test.py configs/bccd_small/centernet_r50.py \
#     work_dirs/bccd_small/centernet_r50/epoch_72.pth
_base_ = [
    '../_base_/models/narrow_resnet50.py',
    '../_base_/datasets/bccd_small.py',
    '../_base_/schedules/small_72e.py',
    '../_base_/cpu_runtime.py',
]

model = dict(
    data_preprocessor=dict(pad_size_divisor={{_base_.image_size}}),
    bbox_head=dict(num_classes={{_base_.num_classes}}))
