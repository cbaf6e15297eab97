# ImageNet: train/<wnid>/*.JPEG and val/<wnid>/*.JPEG in --data-root; cropped by the workers.
_base_ = ['./data.py', './imagenet_100e.py']

num_classes = 1000
data_preprocessor = dict(
    type='BatchPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
    crop_padding=0)

train_dataloader = dict(
    batch_size=256, num_workers=8, persistent_workers=True, dataset=dict(type='ImageNetFolder'))
val_dataloader = dict(num_workers=8, persistent_workers=True, dataset=dict(type='ImageNetFolder'))
test_dataloader = val_dataloader
