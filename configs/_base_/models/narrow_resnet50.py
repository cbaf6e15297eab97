# A CenterNet of the same kind as the ResNet-50 teacher, narrow enough for two CPU cores. Residual
# blocks start as the identity: without that, fifty layers from scratch are no teacher after a
# thousand steps (docs/results.md).
_base_ = './narrow_resnet18.py'

model = dict(
    backbone=dict(depth=50, base_channels=16, zero_init_residual=True),
    neck=dict(in_channels=512, num_deconv_filters=(96, 64)),
    bbox_head=dict(in_channels=64, feat_channels=64))
