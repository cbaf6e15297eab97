# Neuron selectivity transfer on every stage, weight 50 (RepDistiller).
custom_hooks = [
    dict(type='TeacherHook'),
    dict(type='BestAndLastHook'),
    dict(type='DistillHook', tap='backbone.stage?', weight=50.0, loss=dict(type='NSTLoss')),
]
