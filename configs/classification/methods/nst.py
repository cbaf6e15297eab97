# Neuron selectivity transfer on every stage, weight 50 (RepDistiller).
terms = dict(nst=dict(tap='backbone.stage?', weight=50.0, loss=dict(type='NSTLoss')))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
