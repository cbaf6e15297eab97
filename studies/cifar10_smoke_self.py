# mmkd study cifar10_smoke_self
# As cifar10_smoke.py for every method of configs/selfdistill.
_base_ = './tiny_imagenet_self.py'
SMALL = dict(data='cifar10', epochs=8, options={
    'train_dataloader.dataset.max_samples': 5000, 'train_cfg.val_interval': 8})

baseline = dict(SMALL, title='ResNet-8, alone', student='resnet8')
variants = {method: dict(SMALL, student='resnet8') for method in _base_.variants}
seeds = [0]
