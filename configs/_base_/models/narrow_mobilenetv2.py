# A CenterNet of the same kind as the MobileNetV2 student, narrow enough for two CPU cores. As in
# narrow_resnet18.py its last features have stride 16: 32 would leave 5x5 cells of a 160 px image.
_base_ = './narrow_resnet18.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='MobileNetV2',
        strides=(1, 2, 2, 2, 1, 1, 1),
        widen_factor=0.5,
        out_indices=(7, )),
    neck=dict(in_channels=1280))
