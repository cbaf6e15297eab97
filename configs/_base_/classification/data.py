# What the classification data sets share; each names its `type`, its classes and its colours.
_base_ = '../runtime.py'

data_root = '{{$DATA_ROOT:data}}'

train_dataloader = dict(
    batch_size=64,
    num_workers=0,  # the images are in memory: a batch is one indexing operation
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='whole_batch'),
    drop_last=True,
    dataset=dict(data_root=data_root, split='train'))
val_dataloader = dict(
    batch_size=500,
    num_workers=0,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='whole_batch'),
    dataset=dict(data_root=data_root, split='test'))
test_dataloader = val_dataloader

val_evaluator = dict(type='TopKAccuracy')
test_evaluator = val_evaluator
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

default_hooks = dict(
    logger=dict(interval=100),
    checkpoint=dict(interval=10, max_keep_ckpts=2),
    check_data=dict(type='CheckTrainingDataHook'))
# Every process augments its own images with random numbers of its own.
randomness = dict(diff_rank_seed=True)
