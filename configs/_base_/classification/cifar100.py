# CIFAR-100: cifar-100-python.tar.gz or cifar-100-python in --data-root.
_base_ = ['./data.py', './cifar_240e.py']

num_classes = 100
data_preprocessor = dict(
    type='BatchPreprocessor', mean=[129.3, 124.1, 112.4], std=[68.2, 65.4, 70.4])
train_dataloader = val_dataloader = test_dataloader = dict(dataset=dict(type='CIFAR100'))
