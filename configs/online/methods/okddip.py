# OKDDip: all members but the last imitate mixtures of one another, weighted by attention; the last
# one leads and imitates their mean. T = 3, 80 epochs of warm-up; the paper has four members.
# When: with three members or more, of which the last is the one to deploy.
_base_ = '../../_base_/classification/cifar_300e.py'

terms = dict(okddip=dict(
    type='SelfTerm', tap=['members.*.backbone.embedding', 'members.*.head.fc'], weight=1.0,
    warmup_epochs=80, warmup='gaussian', loss=dict(type='OKDDipLoss', temperature=3.0),
    connector=dict(type='PeerAttention', reduction=8)))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
