# mmkd study cifar10_smoke
# That every method of configs/classification runs and learns, not how good it is: a ResNet-8 on
# 5 000 images of CIFAR-10, for 8 epochs of the recipe's 240, from a ResNet-20 that had 20 000.
_base_ = './tiny_imagenet_offline.py'
SMALL = dict(data='cifar10', epochs=8, options={
    'train_dataloader.dataset.max_samples': 5000, 'train_cfg.val_interval': 8})
TEACHER = 'work_dirs/cifar10_smoke/resnet20/epoch_8.pth'

baseline = dict(SMALL, title='ResNet-8, alone', student='resnet8')
variants = {method: dict(SMALL, student='resnet8', teacher=f'resnet20={TEACHER}')
            for method in _base_.variants}
teachers = dict(_delete_=True, resnet20=dict(
    SMALL, config='classifier', student='resnet20', checkpoint=TEACHER,
    options={'train_dataloader.dataset.max_samples': 20000, 'train_cfg.val_interval': 8}))
seeds = [0]
