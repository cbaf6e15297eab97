# 100 classes of TinyImageNet at 32 x 32, listed in tiny_imagenet100.txt: tiny_imagenet100_32px in
# --data-root, which tools/prepare_tiny_imagenet.py makes.
_base_ = ['./data.py', './cifar_240e.py']

num_classes = 100
data_preprocessor = dict(
    type='BatchPreprocessor', mean=[122.6, 113.7, 100.5], std=[64.4, 62.7, 66.2])
train_dataloader = val_dataloader = test_dataloader = dict(dataset=dict(type='TinyImageNet100'))
