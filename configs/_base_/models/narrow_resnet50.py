# A CenterNet of the same kind as the ResNet-50 teacher, narrow enough for two CPU cores.
_base_ = './narrow_resnet18.py'

model = dict(
    backbone=dict(depth=50, base_channels=32),
    neck=dict(in_channels=1024, num_deconv_filters=(128, 64)),
    bbox_head=dict(in_channels=64, feat_channels=64))
