# Cross-entropy alone: members that never meet, the baseline of every method.
# When: as the baseline: members that never meet.
_base_ = '../../_base_/classification/cifar_300e.py'
custom_hooks = [dict(type='BestAndLastHook')]
