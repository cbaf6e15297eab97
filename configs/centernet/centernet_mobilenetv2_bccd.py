# python tools/train.py configs/centernet/centernet_mobilenetv2_bccd.py
# python tools/test.py configs/centernet/centernet_mobilenetv2_bccd.py \
#     work_dirs/centernet_mobilenetv2_bccd/epoch_100.pth
# python tools/export.py configs/centernet/centernet_mobilenetv2_bccd.py \
#     work_dirs/centernet_mobilenetv2_bccd/epoch_100.pth
_base_ = [
    '../_base_/models/centernet_mobilenetv2.py', '../_base_/datasets/bccd.py',
    '../_base_/schedules/centernet_100e.py', '../_base_/default_runtime.py'
]

model = dict(
    data_preprocessor=dict(pad_size_divisor={{_base_.image_size}}),
    bbox_head=dict(num_classes={{_base_.num_classes}}))
