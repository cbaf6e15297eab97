# Fashion-MNIST: the four .gz files in --data-root.
_base_ = ['./data.py', './cifar_240e.py']

num_classes = 10
data_preprocessor = dict(
    type='BatchPreprocessor', mean=[72.9, 72.9, 72.9], std=[90.0, 90.0, 90.0])
train_dataloader = val_dataloader = test_dataloader = dict(dataset=dict(type='FashionMNIST'))
