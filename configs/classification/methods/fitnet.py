# FitNets: the second stage as a hint, through a regressor, with weight 100 (RepDistiller).
# When: as the plain baseline of the methods for features.
terms = dict(fitnet=dict(
    tap='backbone.stage2', weight=100.0, loss=dict(type='FitNetLoss'),
    connector=dict(type='RegressorConnector')))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
