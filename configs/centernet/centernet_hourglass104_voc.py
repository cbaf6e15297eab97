# python tools/train.py configs/centernet/centernet_hourglass104_voc.py
# python tools/test.py configs/centernet/centernet_hourglass104_voc.py \
#     work_dirs/centernet_hourglass104_voc/epoch_100.pth
# python tools/export.py configs/centernet/centernet_hourglass104_voc.py \
#     work_dirs/centernet_hourglass104_voc/epoch_100.pth
_base_ = [
    '../_base_/models/centernet_hourglass.py', '../_base_/datasets/voc0712.py',
    '../_base_/schedules/centernet_100e.py', '../_base_/default_runtime.py'
]

model = dict(
    data_preprocessor=dict(pad_size_divisor={{_base_.image_size}}),
    bbox_head=dict(num_classes={{_base_.num_classes}}))
