# A CenterNet of the same kind as the ResNet-18 student, narrow enough for two CPU cores, and
# without initial weights. A stride of 32 would leave 4x4 cells of a 128 px image to find objects
# in, so the last stage is dilated, not strided, and one deconvolution less leads to stride 4.
model = dict(
    type='CenterNet',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=128),
    backbone=dict(
        type='ResNet',
        depth=18,
        base_channels=16,
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        norm_eval=False,
        zero_init_residual=False),
    neck=dict(
        type='CTResNetNeck',
        in_channels=128,
        num_deconv_filters=(64, 32),
        num_deconv_kernels=(4, 4),
        use_dcn=False),
    bbox_head=dict(type='CenterNetHead', num_classes=20, in_channels=32, feat_channels=32),
    train_cfg=None,
    test_cfg=dict(topk=100, local_maximum_kernel=3, max_per_img=100))
