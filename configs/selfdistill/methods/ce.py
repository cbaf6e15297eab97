# Cross-entropy alone: the baseline of every method.
_base_ = '../../_base_/classification/{{$MMKD_DATA:cifar100}}.py'

custom_hooks = [dict(type='BestAndLastHook')]
