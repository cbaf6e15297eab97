# python tools/train.py configs/voc_animals/centernet_r18_wide.py \
#     --work-dir work_dirs/voc_animals/centernet_r18_wide
# python tools/test.py configs/voc_animals/centernet_r18_wide.py \
#     work_dirs/voc_animals/centernet_r18_wide/epoch_30.pth
# A teacher: ResNet-18 without its last stage, so that stride 16 stays, and wide behind it. ImageNet
# weights from a file of your own: --cfg-options model.backbone.init_cfg.checkpoint=FILE
_base_ = [
    '../_base_/models/centernet_resnet18.py',
    '../_base_/datasets/voc_animals.py',
    '../_base_/schedules/pretrained_30e.py',
    '../_base_/cpu_runtime.py',
]

model = dict(
    data_preprocessor=dict(pad_size_divisor={{_base_.image_size}}),
    backbone=dict(num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(2, )),
    neck=dict(in_channels=256, num_deconv_filters=(192, 96), num_deconv_kernels=(4, 4)),
    bbox_head=dict(num_classes={{_base_.num_classes}}, in_channels=96, feat_channels=96))
