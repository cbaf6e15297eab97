# fitnet: the mean square between feature maps.
terms = dict(fitnet=dict(
    tap='neck:*', match='stride', size='teacher', connector=dict(type='AlignConnector'),
    loss=dict(type='FitNetLoss')))
distill_weights = dict(fitnet=1)
custom_hooks = [dict(type='DistillationHook')]
