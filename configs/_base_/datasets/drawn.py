# The synthetic data set, made by: python tools/prepare_voc.py draw data/drawn
# Another place: --data-root /data/drawn
classes = ('disc', 'square', 'triangle')
num_classes = len(classes)
image_size = 128
data_root = '{{$DRAWN_ROOT:data/drawn/}}'

train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(image_size, image_size), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=(image_size, image_size), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),  # after Resize: the boxes keep their size
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]

train_dataloader = dict(
    batch_size=8,
    num_workers=0,  # small images: on two cores workers cost more than they save
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='VOCLayoutDataset',
        data_root=data_root,
        ann_file='ImageSets/Main/train.txt',
        metainfo=dict(classes=classes),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=16,
    num_workers=0,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='VOCLayoutDataset',
        data_root=data_root,
        ann_file='ImageSets/Main/val.txt',
        metainfo=dict(classes=classes),
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = dict(
    batch_size=16,
    num_workers=0,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='VOCLayoutDataset',
        data_root=data_root,
        ann_file='ImageSets/Main/test.txt',
        metainfo=dict(classes=classes),
        test_mode=True,
        pipeline=test_pipeline))

val_evaluator = dict(type='VOCMeanAPMetric')
test_evaluator = val_evaluator
