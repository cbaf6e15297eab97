# Cross-entropy alone: the baseline of every method.
# When: as the baseline: a method is as good as its gain over it.
_base_ = '../../_base_/classification/{{$MMKD_DATA:cifar100}}.py'

custom_hooks = [dict(type='BestAndLastHook')]
