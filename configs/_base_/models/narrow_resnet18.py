# A CenterNet of the same kind as the ResNet-18 student, narrow enough for two CPU cores, and
# without initial weights.
model = dict(
    type='CenterNet',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=128),
    backbone=dict(type='ResNet', depth=18, base_channels=16, norm_eval=False),
    neck=dict(
        type='CTResNetNeck',
        in_channels=128,
        num_deconv_filters=(64, 32, 32),
        num_deconv_kernels=(4, 4, 4),
        use_dcn=False),
    bbox_head=dict(type='CenterNetHead', num_classes=20, in_channels=32, feat_channels=32),
    train_cfg=None,
    test_cfg=dict(topk=100, local_maximum_kernel=3, max_per_img=100))
