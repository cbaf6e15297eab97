# MCL: embeddings of 128 dimensions, tau 0.1 (ImageNet: 0.07), T = 3, 0.1 for the contrastive parts
# and 1 for their soft forms; two images of every class in a batch, where there are classes enough.
# When: where embeddings are to be shared, on data with many classes.
_base_ = '../../_base_/classification/cifar_300e.py'

on_imagenet = '{{$MMKD_DATA:cifar100}}' == 'imagenet'
terms = dict(mcl=dict(
    type='SelfTerm', tap='members.*.backbone.embedding', weight=1.0,
    loss=dict(
        type='MCLLoss', temperature=0.07 if on_imagenet else 0.1, kd_temperature=3.0, vcl=0.1,
        soft_vcl=1.0, icl=0.1, soft_icl=1.0),
    connector=dict(type='ContrastiveHeads', dim=128)))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
if '{{$MMKD_DATA:cifar100}}' in (
        'cifar100', 'tiny_imagenet', 'tiny_imagenet100', 'imagenet'):
    train_dataloader = dict(
        batch_sampler=dict(type='ClassBalancedSampler', samples_per_class=2), drop_last=False)
