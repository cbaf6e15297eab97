# reviewkd: feature maps at several scales, each seen together with all coarser ones.
terms = dict(reviewkd=dict(
    tap='neck:*', match='stride', connector=dict(type='ReviewConnector'),
    loss=dict(type='ReviewKDLoss')))
distill_weights = dict(reviewkd=1)
custom_hooks = [dict(type='DistillationHook')]
