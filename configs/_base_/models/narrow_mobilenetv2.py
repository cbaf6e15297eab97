# A CenterNet of the same kind as the MobileNetV2 student, narrow enough for two CPU cores. Its
# strides are fixed, so it keeps all three deconvolutions.
_base_ = './narrow_resnet18.py'

model = dict(
    backbone=dict(_delete_=True, type='MobileNetV2', widen_factor=0.5, out_indices=(7, )),
    neck=dict(
        in_channels=1280, num_deconv_filters=(64, 32, 32), num_deconv_kernels=(4, 4, 4)))
