# FitNets: the second stage as a hint, through a regressor, with weight 100 (RepDistiller).
custom_hooks = [
    dict(type='TeacherHook'),
    dict(type='BestAndLastHook'),
    dict(
        type='DistillHook', tap='backbone.stage2', weight=100.0, loss=dict(type='FitNetLoss'),
        connector=dict(type='RegressorConnector')),
]
