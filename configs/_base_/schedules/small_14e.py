# As small_8e.py, in 14 epochs: for a ResNet-50 teacher.
_base_ = './small_8e.py'

train_cfg = dict(max_epochs=14, val_interval=14)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], end=14)]
