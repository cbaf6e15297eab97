# Photographs of people and animals: 3 426 images of PASCAL VOC 2012, cut out by
#   python tools/prepare_voc.py subset data/VOCdevkit/VOC2012 \
#       --lists configs/voc_animals/lists --out data/VOC_animals
# Elsewhere: VOC_ANIMALS_ROOT=/path/to/VOC_animals/ before the command.
_base_ = './voc0712.py'
classes = ('person', 'cat', 'cow', 'dog', 'horse', 'sheep')
num_classes = len(classes)
image_size = 160
data_root = '{{$VOC_ANIMALS_ROOT:data/VOC_animals/}}'

train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(image_size, image_size), keep_ratio=True),
    dict(
        type='FastRandomCenterCropPad',
        distortion=dict(),
        crop_size=(image_size, image_size),
        ratios=(0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3),
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
        test_pad_mode=None),
    dict(type='Resize', scale=(image_size, image_size), keep_ratio=True),
    dict(type='FastRandomFlip', prob=0.5),
    dict(type='FastPackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=(image_size, image_size), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs',
         meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=16, num_workers=1,
    dataset=dict(
        _delete_=True, type='VOCLayoutDataset', data_root=data_root,
        ann_file='ImageSets/Main/train.txt', metainfo=dict(classes=classes),
        filter_cfg=dict(filter_empty_gt=True), pipeline=train_pipeline))
val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        _delete_=True, type='VOCLayoutDataset', data_root=data_root,
        ann_file='ImageSets/Main/val.txt', metainfo=dict(classes=classes),
        test_mode=True, pipeline=test_pipeline))
test_dataloader = dict(
    num_workers=1,
    dataset=dict(
        _delete_=True, type='VOCLayoutDataset', data_root=data_root,
        ann_file='ImageSets/Main/test.txt', metainfo=dict(classes=classes),
        test_mode=True, pipeline=test_pipeline))
