# The recipe of RepDistiller and its successors for CIFAR: 240 epochs, batch 64.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=240, val_interval=1)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=5e-4))
param_scheduler = [
    dict(type='MultiStepLR', milestones=[150, 180, 210], gamma=0.1, by_epoch=True),
]
