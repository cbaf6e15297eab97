# A folder in PASCAL VOC's layout: JPEGImages, Annotations and ImageSets/Main/{train,val,test}.txt.
# What the detection data sets share; each names its classes and its data_root.
image_size = 512

train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadAnnotations', with_bbox=True),
    # Objects are then as large as in testing, whatever the size of the photographs.
    dict(type='Resize', scale=(image_size, image_size), keep_ratio=True),
    # MMDetection's transforms, faster: the same seed gives the same boxes and, to rounding, image.
    dict(
        type='FastRandomCenterCropPad',
        distortion=dict(),  # PhotoMetricDistortion's arguments: of the photograph, not the padding
        crop_size=(image_size, image_size),
        ratios=(0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3),
        # Pads with what the data preprocessor turns into 0, the value that it pads with itself.
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
        test_pad_mode=None),
    dict(type='Resize', scale=(image_size, image_size), keep_ratio=True),
    dict(type='FastRandomFlip', prob=0.5),
    dict(type='FastPackDetInputs'),
]
# The data preprocessor pads right and bottom to image_size: CenterNet needs no border here.
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=(image_size, image_size), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),  # after Resize: the boxes keep their size
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]

train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='VOCLayoutDataset',
        ann_file='ImageSets/Main/train.txt',
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=16,
    num_workers=0,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='VOCLayoutDataset',
        ann_file='ImageSets/Main/val.txt',
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = dict(
    val_dataloader,
    dataset=dict(val_dataloader['dataset'], ann_file='ImageSets/Main/test.txt'))

val_evaluator = dict(type='VOCMeanAPMetric')
test_evaluator = val_evaluator
