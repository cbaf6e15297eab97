# CenterNet with EfficientNet-b0, tapped at its last convolution (1280 channels, stride 32).
_base_ = './centernet_resnet18.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='EfficientNet',
        arch='b0',
        out_indices=(6, ),
        # The epsilon that the weights were trained with.
        norm_cfg=dict(type='BN', eps=1e-3),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.openmmlab.com/mmclassification/v0/efficientnet/'
                       'efficientnet-b0_3rdparty_8xb32_in1k_20220119-a7e2a0b1.pth',
            prefix='backbone.')),
    neck=dict(in_channels=1280))
