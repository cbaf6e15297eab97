# Variational information distillation on every stage, weight 1 (RepDistiller).
custom_hooks = [
    dict(type='TeacherHook'),
    dict(type='BestAndLastHook'),
    dict(type='DistillHook', tap='backbone.stage?', weight=1.0, loss=dict(type='VIDLoss')),
]
