# python tools/train.py configs/demo/centernet_r50.py
# python tools/test.py configs/demo/centernet_r50.py \
#     work_dirs/centernet_r50/epoch_14.pth
# python tools/export.py configs/demo/centernet_r50.py \
#     work_dirs/centernet_r50/epoch_14.pth --out centernet_r50.onnx
_base_ = [
    '../_base_/models/narrow_resnet50.py',
    '../_base_/datasets/drawn.py',
    '../_base_/schedules/small_14e.py',
    '../_base_/cpu_runtime.py',
]

model = dict(
    data_preprocessor=dict(pad_size_divisor={{_base_.image_size}}),
    bbox_head=dict(num_classes={{_base_.num_classes}}))
