# python tools/train.py configs/demo/centernet_r18.py
# python tools/test.py configs/demo/centernet_r18.py \
#     work_dirs/centernet_r18/epoch_8.pth
# python tools/export.py configs/demo/centernet_r18.py \
#     work_dirs/centernet_r18/epoch_8.pth --out centernet_r18.onnx
_base_ = [
    '../_base_/models/narrow_resnet18.py',
    '../_base_/datasets/drawn.py',
    '../_base_/schedules/small_8e.py',
    '../_base_/cpu_runtime.py',
]

model = dict(
    data_preprocessor=dict(pad_size_divisor={{_base_.image_size}}),
    bbox_head=dict(num_classes={{_base_.num_classes}}))
