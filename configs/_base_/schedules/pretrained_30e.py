# As small_8e.py, in 30 epochs, with a lower rate: for networks that begin with ImageNet weights.
_base_ = './small_8e.py'

train_cfg = dict(max_epochs=30, val_interval=15)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
param_scheduler = [
    dict(_base_.param_scheduler[0], end=100),
    dict(_base_.param_scheduler[1], end=30, eta_min=1e-6),
]
