# Deep mutual learning: everyone imitates everyone else, at temperature 1 and weight 1.
_base_ = '../../_base_/classification/cifar_300e.py'

custom_hooks = [
    dict(type='TeacherHook'),
    dict(type='BestAndLastHook'),
    dict(
        type='SelfDistillHook', tap='members.*.head.fc', weight=1.0,
        loss=dict(type='DMLLoss', temperature=1.0)),
]
