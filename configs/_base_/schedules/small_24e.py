# As small_8e.py, in 24 epochs: for BCCD, teachers and students alike.
_base_ = './small_8e.py'

train_cfg = dict(max_epochs=24, val_interval=24)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], end=24)]
