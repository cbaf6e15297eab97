_base_ = './centernet_resnet18.py'

model = dict(
    backbone=dict(
        depth=34,
        init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet34-b627a593.pth')),
    neck=dict(in_channels=512))
