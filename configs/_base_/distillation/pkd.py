# pkd: the pattern of each feature map, whatever its scale; the default.
# When: first between detectors of any kind: features may differ in scale, and one weight serves
# many pairs.
terms = dict(pkd=dict(
    tap='neck:*', match='stride', connector=dict(type='AlignConnector'),
    loss=dict(type='PKDLoss')))
distill_weights = dict(pkd=10)
for_family = dict(two_stage=dict(pkd=dict(weight=6)))
custom_hooks = [dict(type='DistillationHook')]
