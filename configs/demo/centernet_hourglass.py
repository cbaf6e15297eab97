# python tools/train.py configs/demo/centernet_hourglass.py
# python tools/test.py configs/demo/centernet_hourglass.py \
#     work_dirs/centernet_hourglass/epoch_8.pth
# python tools/export.py configs/demo/centernet_hourglass.py \
#     work_dirs/centernet_hourglass/epoch_8.pth --out centernet_hourglass.onnx
_base_ = [
    '../_base_/models/narrow_hourglass.py',
    '../_base_/datasets/drawn.py',
    '../_base_/schedules/small_8e.py',
    '../_base_/cpu_runtime.py',
]

model = dict(
    data_preprocessor=dict(pad_size_divisor={{_base_.image_size}}),
    bbox_head=dict(num_classes={{_base_.num_classes}}))
