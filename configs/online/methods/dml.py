# Deep mutual learning: everyone imitates everyone else, at temperature 1 and weight 1.
# When: first: it is the simplest, needs logits alone, and takes any networks.
_base_ = '../../_base_/classification/cifar_300e.py'

terms = dict(dml=dict(
    type='SelfTerm', tap='members.*.head.fc', weight=1.0,
    loss=dict(type='DMLLoss', temperature=1.0)))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
