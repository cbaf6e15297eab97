# PASCAL VOC: trained on VOC2007 and VOC2012 trainval, tested on VOC2007 test.
# The archives are unpacked by: python tools/prepare_voc.py extract DOWNLOADS --out data/VOCdevkit
# Another place: --data-root /data/VOCdevkit
classes = ('aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow',
           'diningtable', 'dog', 'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa',
           'train', 'tvmonitor')
num_classes = len(classes)
image_size = 512
data_root = '{{$VOC_ROOT:data/VOCdevkit/}}'

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
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='ConcatDataset',
        ignore_keys=['dataset_type'],  # VOC2007 and VOC2012
        datasets=[
            dict(
                type='VOCLayoutDataset',
                data_root=data_root,
                data_prefix=dict(sub_data_root=f'{year}/'),
                ann_file=f'{year}/ImageSets/Main/trainval.txt',
                metainfo=dict(classes=classes),
                filter_cfg=dict(filter_empty_gt=True),
                pipeline=train_pipeline) for year in ('VOC2007', 'VOC2012')
        ]))
val_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='VOCLayoutDataset',
        data_root=data_root,
        data_prefix=dict(sub_data_root='VOC2007/'),
        ann_file='VOC2007/ImageSets/Main/test.txt',
        metainfo=dict(classes=classes),
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(type='VOCMeanAPMetric')
test_evaluator = val_evaluator
