# Neuron selectivity transfer on every stage, weight 50 (RepDistiller).
# When: between networks of different widths: it compares where channels look, without a connector.
terms = dict(nst=dict(tap='backbone.stage?', weight=50.0, loss=dict(type='NSTLoss')))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
