# The data set of --data under the recipe of the MCL paper for CIFAR: 300 epochs, batch 128,
# a rate of 0.1 that falls along a cosine to 0, for any network. ImageNet keeps its own recipe.
_base_ = './{{$MMKD_DATA:cifar100}}.py'

if '{{$MMKD_DATA:cifar100}}' != 'imagenet':
    train_cfg = dict(max_epochs=300)
    train_dataloader = dict(batch_size=128)
    optim_wrapper = dict(optimizer=dict(lr=0.1, nesterov=True))
    param_scheduler = [dict(type='CosineAnnealingLR', T_max=300, eta_min=0.0, by_epoch=True)]
