# cwd: where each channel of the feature maps is active.
terms = dict(cwd=dict(
    tap='neck:*', match='stride', size='teacher', connector=dict(type='AlignConnector'),
    loss=dict(type='CWDLoss', tau=1.0)))
distill_weights = dict(cwd=10)
custom_hooks = [dict(type='DistillationHook')]
