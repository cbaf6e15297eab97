# As small_6e.py, in 12 epochs: for the teachers of the demo.
_base_ = './small_6e.py'

train_cfg = dict(max_epochs=12, val_interval=12)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=12, eta_min=1e-5,
         convert_to_iter_based=True),
]
