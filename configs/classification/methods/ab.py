# Activation boundaries: every stage before its last ReLU, weight 0.003 (the authors' code and
# RepDistiller), for the first 30 epochs.
# When: between networks with the same number of stages: it teaches which neurons are active, and
# only in the first epochs, so that another method may follow.
terms = dict(ab=dict(
    tap='backbone.stage?.preact', weight=3e-3, until=30, loss=dict(type='ABLoss', margin=1.0),
    connector=dict(type='OFDConnector')))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
