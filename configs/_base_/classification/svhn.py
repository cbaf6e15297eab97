# SVHN: train_32x32.mat and test_32x32.mat in --data-root. A mirrored digit is no digit.
_base_ = ['./data.py', './cifar_240e.py']

num_classes = 10
data_preprocessor = dict(
    type='BatchPreprocessor', mean=[111.6, 113.2, 120.6], std=[50.5, 51.3, 50.2], flip=False)
train_dataloader = val_dataloader = test_dataloader = dict(dataset=dict(type='SVHN'))
