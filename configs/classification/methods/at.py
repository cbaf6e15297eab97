# Attention transfer on every stage, weight 1000 (RepDistiller).
# When: between networks of different widths: maps of attention have no channels, and no connector
# is trained.
terms = dict(at=dict(
    tap='backbone.stage?', weight=1000.0, loss=dict(type='AttentionTransferLoss', p=2)))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
