# Attention transfer on every stage, weight 1000 (RepDistiller).
custom_hooks = [
    dict(type='TeacherHook'),
    dict(type='BestAndLastHook'),
    dict(
        type='DistillHook', tap='backbone.stage?', weight=1000.0,
        loss=dict(type='AttentionTransferLoss', p=2)),
]
