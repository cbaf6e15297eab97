# TinyImageNet: tiny-imagenet-200 in --data-root.
_base_ = ['./data.py', './cifar_240e.py']

num_classes = 200
data_preprocessor = dict(
    type='BatchPreprocessor', mean=[122.5, 114.3, 101.4], std=[70.6, 68.6, 71.9])
train_dataloader = val_dataloader = test_dataloader = dict(dataset=dict(type='TinyImageNet'))
