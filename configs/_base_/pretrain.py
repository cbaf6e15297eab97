# What `mmkd pretrain` fills in: the backbone, the teachers and terms, folder, size and epochs.
_base_ = './runtime.py'

model = dict(
    type='BackboneAlone',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True))
train_dataloader = dict(
    batch_size=128, num_workers=2, persistent_workers=True, drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='UnlabelledImages',
        pipeline=[
            dict(type='LoadImage'),
            # Half to all of each side, brought to a square.
            dict(type='RandomCrop', crop_size=(0.5, 0.5), crop_type='relative_range',
                 allow_negative_crop=True),
            dict(type='Resize', scale=(224, 224), keep_ratio=False),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackDetInputs')]))
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100)
optim_wrapper = dict(type='OptimWrapper',
                     optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05))
param_scheduler = [dict(type='CosineAnnealingLR', T_max=100, by_epoch=True,
                        convert_to_iter_based=True)]
custom_hooks = [dict(type='DistillationHook', check_teachers=False)]
