custom_imports = dict(imports=['mmkd'], allow_failed_imports=False)
default_scope = 'mmkd'
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='TimedLoggerHook', interval=100),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='SafeCheckpointHook', interval=1, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    epoch_seed=dict(type='EpochSeedHook'),
    short_history=dict(type='ShortHistoryHook'),
    stop_on_invalid_loss=dict(type='StopOnInvalidLossHook'),
    sync_buffers=dict(type='SyncBuffersHook'),
    check_data=dict(type='CheckTrainingDataHook'))
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer')
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
log_level = 'WARNING'
load_from = None
resume = False
randomness = dict(seed=0, diff_rank_seed=True)
data_root = 'work_dirs/classifier/images'
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='whole_batch'),
    drop_last=True,
    dataset=dict(data_root='work_dirs/classifier/images', split='train', type='CIFAR10'))
val_dataloader = dict(
    batch_size=500,
    num_workers=0,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='whole_batch'),
    dataset=dict(data_root='work_dirs/classifier/images', split='test', type='CIFAR10'))
test_dataloader = dict(
    batch_size=500,
    num_workers=0,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='whole_batch'),
    dataset=dict(data_root='work_dirs/classifier/images', split='test', type='CIFAR10'))
val_evaluator = dict(type='TopKAccuracy')
test_evaluator = dict(type='TopKAccuracy')
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=1)
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.001, momentum=0.9, weight_decay=0.0005))
param_scheduler = [dict(type='MultiStepLR', milestones=[150, 180, 210], gamma=0.1, by_epoch=True)]
num_classes = 10
data_preprocessor = dict(
    type='BatchPreprocessor', mean=[125.3, 123.0, 113.9], std=[63.0, 62.1, 66.7])
custom_hooks = [dict(type='BestAndLastHook'), dict(type='KeptLosses')]
data = 'cifar10'
method = 'ce'
student = 'resnet8'
teacher = 'resnet32x4'
checkpoints = dict()
model = dict(
    type='Classifier',
    backbone=dict(type='KeptNetwork'),
    num_classes=10,
    data_preprocessor=dict(
        type='BatchPreprocessor', mean=[125.3, 123.0, 113.9], std=[63.0, 62.1, 66.7]))
last_epoch = 240
teachers = dict()
work_dir = 'work_dirs/classifier/work'
launcher = 'none'
