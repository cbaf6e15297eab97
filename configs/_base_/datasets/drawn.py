# The synthetic data set, made by: python tools/prepare_voc.py draw data/drawn
# Another place: --data-root /data/drawn
_base_ = './voc_layout.py'
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
# As in voc_layout.py, at this size.
test_pipeline = [
    dict(step, scale=(image_size, image_size)) if step.type == 'Resize' else step
    for step in _base_.test_pipeline]

train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        data_root=data_root, metainfo=dict(classes=classes), pipeline=train_pipeline))
val_dataloader = test_dataloader = dict(
    dataset=dict(
        data_root=data_root, metainfo=dict(classes=classes), pipeline=test_pipeline))
