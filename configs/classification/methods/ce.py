# Cross-entropy alone: teachers, and the baseline of every method.
custom_hooks = [dict(type='BestAndLastHook')]
