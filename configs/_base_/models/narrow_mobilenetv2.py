# A CenterNet of the same kind as the MobileNetV2 student, narrow enough for two CPU cores.
_base_ = './narrow_resnet18.py'

model = dict(
    backbone=dict(
        _delete_=True, type='MobileNetV2', widen_factor=0.5, out_indices=(6, )),
    neck=dict(in_channels=160))
