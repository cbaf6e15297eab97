# reviewkd: feature maps at several scales, each seen together with all coarser ones.
# When: between detectors with a pyramid, with published weights for Faster R-CNN: each level
# learns together with the coarser ones.
terms = dict(reviewkd=dict(
    tap='neck:*', match='stride', connector=dict(type='ReviewConnector'),
    loss=dict(type='ReviewKDLoss')))
distill_weights = dict(reviewkd=1)
custom_hooks = [dict(type='DistillationHook')]
