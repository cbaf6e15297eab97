# The recipe of the distillation literature for ImageNet: 100 epochs, batch 256 in all.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100, val_interval=1)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4))
param_scheduler = [
    dict(type='MultiStepLR', milestones=[30, 60, 90], gamma=0.1, by_epoch=True),
]
