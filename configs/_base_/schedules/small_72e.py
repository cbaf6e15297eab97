# As small_8e.py, in 72 epochs: for a ResNet-50 teacher on BCCD.
_base_ = './small_8e.py'

train_cfg = dict(max_epochs=72, val_interval=72)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], end=72)]
