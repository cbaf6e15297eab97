# Layer-wise MCL: MCL between all stages of all members, tau 0.1. Every 50 iterations the
# meta-network that weighs the pairs of stages learns from two inner steps. On ImageNet images are
# contrasted with memory banks, tau is 0.07, the contrastive parts count 0.01, and the interval is
# 500; elsewhere batches have two images of every class, where there are classes enough.
# When: where features of all stages are to be shared and time allows it: it trains a meta-network
# beside the members.
_base_ = '../../_base_/classification/cifar_300e.py'

data = '{{$MMKD_DATA:cifar100}}'
if data == 'imagenet':
    loss = dict(
        type='LMCLMemoryLoss', num_negatives=8192, num_positives=1, momentum=0.5,
        temperature=0.07, vcl=0.01, icl=0.01)
else:
    loss = dict(type='LMCLLoss', temperature=0.1, vcl=0.1, icl=0.1)
terms = dict(l_mcl=dict(
    type='SelfTerm', weight=1.0,
    tap=['members.*.backbone.stage?', 'members.*.backbone.embedding', 'members.*.head.fc'],
    loss=dict(kd_temperature=3.0, soft_vcl=1.0, soft_icl=1.0, **loss),
    connector=dict(type='LayerwiseHeads', dim=128)))
custom_hooks = [
    dict(type='DistillationHook'),
    dict(type='BestAndLastHook'),
    dict(
        type='MetaOptimizeHook', inner_steps=2, interval=500 if data == 'imagenet' else 50,
        weight_decay=1e-4 if data == 'imagenet' else 5e-4),
]
if data in ('cifar100', 'tiny_imagenet', 'tiny_imagenet100'):
    train_dataloader = dict(
        batch_sampler=dict(type='ClassBalancedSampler', samples_per_class=2), drop_last=False)
