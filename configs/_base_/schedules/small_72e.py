# As small_8e.py, in 72 epochs: for a ResNet-50 teacher on BCCD.
_base_ = './small_8e.py'

train_cfg = dict(max_epochs=72, val_interval=72)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=72, eta_min=1e-5,
         convert_to_iter_based=True),
]
