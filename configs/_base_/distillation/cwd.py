# cwd: where each channel of the feature maps is active.
# When: where it matters in which cells a channel is active, and not how strongly: a constant for
# each channel makes no difference.
terms = dict(cwd=dict(
    tap='neck:*', match='stride', size='teacher', connector=dict(type='AlignConnector'),
    loss=dict(type='CWDLoss', tau=1.0)))
distill_weights = dict(cwd=10)
custom_hooks = [dict(type='DistillationHook')]
