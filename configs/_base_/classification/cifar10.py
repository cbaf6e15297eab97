# CIFAR-10: cifar-10-python.tar.gz or cifar-10-batches-py in --data-root.
_base_ = ['./data.py', './cifar_240e.py']

num_classes = 10
data_preprocessor = dict(
    type='BatchPreprocessor', mean=[125.3, 123.0, 113.9], std=[63.0, 62.1, 66.7])
train_dataloader = val_dataloader = test_dataloader = dict(dataset=dict(type='CIFAR10'))
