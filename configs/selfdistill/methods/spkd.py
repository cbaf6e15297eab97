# SPKD inside one network: every stage imitates the similarities of the next. The published weight,
# 3000, is for a teacher that is trained already: at it stages that learn from each other do not get
# off the ground (ResNet8 on 3000 images of CIFAR-10: cross-entropy 2.15 after six epochs; alone
# 1.60, at 300 1.80, at 100 1.65).
# When: as the plain form of what scd does; its weight is ours, since the published one kept stages
# from learning.
_base_ = '../../_base_/classification/{{$MMKD_DATA:cifar100}}.py'

terms = dict(spkd=dict(
    type='SelfTerm', tap='backbone.stage?', weight=100.0,
    loss=dict(type='SimilarityPreservingLoss')))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
