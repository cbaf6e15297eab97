# fitnet: the mean square between feature maps.
# When: as the plain baseline of the methods for features; scales of student and teacher have to be
# alike.
terms = dict(fitnet=dict(
    tap='neck:*', match='stride', size='teacher', connector=dict(type='AlignConnector'),
    loss=dict(type='FitNetLoss')))
distill_weights = dict(fitnet=1)
custom_hooks = [dict(type='DistillationHook')]
