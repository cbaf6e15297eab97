# Overhaul of feature distillation: every stage before its last ReLU, weight 1e-3.
custom_hooks = [
    dict(type='TeacherHook'),
    dict(type='BestAndLastHook'),
    dict(
        type='DistillHook', tap='backbone.stage?.preact', weight=1e-3, loss=dict(type='OFDLoss'),
        connector=dict(type='OFDConnector')),
]
