# Attention transfer on every stage, weight 1000 (RepDistiller).
terms = dict(at=dict(
    tap='backbone.stage?', weight=1000.0, loss=dict(type='AttentionTransferLoss', p=2)))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
