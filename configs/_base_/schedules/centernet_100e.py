# The original CenterNet's recipe for PASCAL VOC (Adam, 1.25e-4 at a batch of 32, no warm-up,
# lr / 10 after 45 and 60 of 70 epochs) stretched to 100 epochs: 64 and 86.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100, val_interval=10)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='Adam', lr=1.25e-4),
    clip_grad=dict(max_norm=35, norm_type=2))

param_scheduler = [
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=100, milestones=[64, 86], gamma=0.1),
]

# The learning rate follows the batch size of all processes together.
auto_scale_lr = dict(enable=True, base_batch_size=32)
