# mmkd study cifar10_smoke_cohorts
# As cifar10_smoke.py for every method of configs/online, with three ResNet-8.
_base_ = './tiny_imagenet_cohorts.py'
SMALL = dict(data='cifar10', epochs=8, options={
    'train_dataloader.dataset.max_samples': 5000, 'train_cfg.val_interval': 8})
MEMBERS = 'resnet8,resnet8,resnet8'

baseline = dict(SMALL, title='ResNet-8s that never meet', members=MEMBERS)
variants = {method: dict(SMALL, members=MEMBERS) for method in _base_.variants}
seeds = [0]
