# A CenterNet of the same kind as the EfficientNet-b0 student, narrow enough for two CPU cores: it
# ends at stride 16, as in narrow_resnet18.py, which leaves out the stages behind it.
_base_ = './narrow_resnet18.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='EfficientNet',
        arch='b0',
        out_indices=(4, ),
        norm_cfg=dict(type='BN', eps=1e-3)),
    neck=dict(in_channels=112))
