# Layer-wise MCL: MCL between all stages of all members, tau 0.1. Every 50 iterations the
# meta-network that weighs the pairs of stages learns from two inner steps. On ImageNet tau is 0.07,
# the contrastive parts count 0.01, and the interval is 500.
_base_ = '../../_base_/classification/cifar_300e.py'

on_imagenet = '{{$DATA:cifar100}}' == 'imagenet'
terms = dict(l_mcl=dict(
    type='SelfTerm', weight=1.0,
    tap=['members.*.backbone.stage?', 'members.*.backbone.embedding', 'members.*.head.fc'],
    loss=dict(
        type='LMCLLoss', temperature=0.07 if on_imagenet else 0.1, kd_temperature=3.0,
        vcl=0.01 if on_imagenet else 0.1, soft_vcl=1.0, icl=0.01 if on_imagenet else 0.1,
        soft_icl=1.0),
    connector=dict(type='LayerwiseHeads', dim=128)))
custom_hooks = [
    dict(type='DistillationHook'),
    dict(type='BestAndLastHook'),
    dict(
        type='MetaOptimizeHook', interval=500 if on_imagenet else 50, inner_steps=2,
        weight_decay=1e-4 if on_imagenet else 5e-4),
]
if '{{$DATA:cifar100}}' in ('cifar100', 'tiny_imagenet', 'imagenet'):
    train_dataloader = dict(
        batch_sampler=dict(type='ClassBalancedSampler', samples_per_class=2), drop_last=False)
