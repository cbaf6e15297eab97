custom_imports = dict(imports=['mmkd'], allow_failed_imports=False)
default_scope = 'mmkd'
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='TimedLoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='SafeCheckpointHook', interval=1, max_keep_ckpts=3),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    epoch_seed=dict(type='EpochSeedHook'),
    short_history=dict(type='ShortHistoryHook'),
    stop_on_invalid_loss=dict(type='StopOnInvalidLossHook'),
    visualization=dict(type='DetVisualizationHook'))
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(
    type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer')
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0)
model = dict(
    type='CenterNet',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=64),
    backbone=dict(type='KeptBackbone'),
    neck=None,
    bbox_head=dict(
        type='CenterNetHead', in_channels=8, feat_channels=8, num_classes=3, num_stacks=1),
    test_cfg=dict(topk=20, local_maximum_kernel=3, max_per_img=20))
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    dataset=dict(type='NoiseDetection', length=4),
    sampler=dict(type='DefaultSampler', shuffle=True))
val_dataloader = dict(
    batch_size=2,
    num_workers=0,
    dataset=dict(type='NoiseDetection', length=4),
    sampler=dict(type='DefaultSampler', shuffle=False))
test_dataloader = dict(
    batch_size=2,
    num_workers=0,
    dataset=dict(type='NoiseDetection', length=4),
    sampler=dict(type='DefaultSampler', shuffle=False))
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
val_evaluator = dict(type='MeanScore')
test_evaluator = dict(type='MeanScore')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.001, momentum=0.9))
param_scheduler = [dict(type='MultiStepLR', milestones=[1], by_epoch=True)]
teachers = dict(mean=dict(ema=0.9))
terms = dict(
    feature=dict(
        tap='backbone:0', loss=dict(type='AttentionLoss'), connector=dict(type='ConvConnector')))
distill_weights = dict(feature=1.0)
custom_hooks = [dict(type='DistillationHook')]
work_dir = 'work_dirs/detector'
launcher = 'none'
