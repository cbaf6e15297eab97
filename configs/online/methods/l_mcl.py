# Layer-wise MCL: MCL between all stages of all members, tau 0.1. Every 50 iterations the
# meta-network that weighs the pairs of stages learns from two inner steps.
_base_ = '../../_base_/classification/cifar_300e.py'

terms = dict(l_mcl=dict(
    type='SelfTerm', weight=1.0,
    tap=['members.*.backbone.stage?', 'members.*.backbone.embedding', 'members.*.head.fc'],
    loss=dict(
        type='LMCLLoss', temperature=0.1, kd_temperature=3.0, vcl=0.1, soft_vcl=1.0, icl=0.1,
        soft_icl=1.0),
    connector=dict(type='LayerwiseHeads', dim=128)))
custom_hooks = [
    dict(type='DistillationHook'),
    dict(type='BestAndLastHook'),
    dict(type='MetaOptimizeHook', interval=50, inner_steps=2),
]
if '{{$DATA:cifar100}}' in ('cifar100', 'tiny_imagenet', 'imagenet'):
    train_dataloader = dict(
        batch_sampler=dict(type='ClassBalancedSampler', samples_per_class=2), drop_last=False)
