# Cross-entropy alone: teachers, and the baseline of every method.
# When: as the baseline: a method is as good as its gain over it.
custom_hooks = [dict(type='BestAndLastHook')]
