# CenterNet with Hourglass-104: two stacks at stride 4, both supervised, no neck.
# num_stacks=1 in backbone and head is Hourglass-52. There are no ImageNet weights for it.
_base_ = './centernet_resnet18.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='HourglassNet',
        downsample_times=5,
        num_stacks=2,
        stage_channels=(256, 256, 384, 384, 384, 512),
        stage_blocks=(2, 2, 2, 2, 2, 4),
        feat_channel=256,
        norm_cfg=dict(type='BN')),
    neck=None,
    bbox_head=dict(in_channels=256, feat_channels=256, num_stacks=2))
