# BCCD at 160 px with flips alone: what two CPU cores can train on.
_base_ = './bccd.py'
image_size = 160

train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(image_size, image_size), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomFlip', prob=0.5, direction='vertical'),
    dict(type='PackDetInputs'),
]
# As in voc_layout.py, at this size.
test_pipeline = [
    dict(step, scale=(image_size, image_size)) if step.type == 'Resize' else step
    for step in _base_.test_pipeline]

# Without workers: on two cores they cost more than they save.
train_dataloader = dict(
    batch_size=8, num_workers=0, persistent_workers=False, dataset=dict(pipeline=train_pipeline))
val_dataloader = test_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(pipeline=test_pipeline))
