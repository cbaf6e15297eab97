# SPKD inside one network: every stage imitates the similarities of the next.
_base_ = '../../_base_/classification/{{$DATA:cifar100}}.py'

custom_hooks = [
    dict(type='TeacherHook'),
    dict(type='BestAndLastHook'),
    dict(
        type='SelfDistillHook', tap='backbone.stage?', weight=3000.0,
        loss=dict(type='SimilarityPreservingLoss')),
]
