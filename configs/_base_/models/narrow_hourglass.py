# A CenterNet of the same kind as the Hourglass-104 teacher (two stacks, both supervised), narrow
# and shallow enough for two CPU cores.
_base_ = './narrow_resnet18.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='HourglassNet',
        downsample_times=3,
        num_stacks=2,
        stage_channels=(48, 48, 64, 64),
        stage_blocks=(1, 1, 1, 2),
        feat_channel=48),
    neck=None,
    bbox_head=dict(in_channels=48, feat_channels=48, num_stacks=2))
