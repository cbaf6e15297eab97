# A CenterNet of the same kind as the EfficientNet-b0 student, small enough for two CPU cores. As in
# narrow_resnet18.py its last features have stride 16; the stages behind them are left out.
_base_ = './narrow_resnet18.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='EfficientNet',
        arch='b0',
        out_indices=(4, ),
        norm_cfg=dict(type='BN', eps=1e-3)),
    neck=dict(in_channels=112))
