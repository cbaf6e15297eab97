# python tools/train.py configs/voc_animals/centernet_mobilenetv2_wide.py \
#     --work-dir work_dirs/voc_animals/centernet_mobilenetv2_wide
# python tools/test.py configs/voc_animals/centernet_mobilenetv2_wide.py \
#     work_dirs/voc_animals/centernet_mobilenetv2_wide/epoch_30.pth
# A teacher: MobileNetV2, wide behind the backbone.
_base_ = [
    '../_base_/models/centernet_mobilenetv2.py',
    '../_base_/datasets/voc_animals.py',
    '../_base_/schedules/pretrained_30e.py',
    '../_base_/cpu_runtime.py',
]

model = dict(
    data_preprocessor=dict(pad_size_divisor={{_base_.image_size}}),
    neck=dict(num_deconv_filters=(256, 128, 96)),
    bbox_head=dict(num_classes={{_base_.num_classes}}, in_channels=96, feat_channels=96))
