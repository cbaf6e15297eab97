# cwd_norm: as cwd, with channels standardised first, and without the last of the epochs.
# When: as mmyolo distils RTMDet: where features of student and teacher differ in scale, with the
# last epochs left to the labels.
terms = dict(cwd_norm=dict(
    tap='neck:*', match='stride', size='teacher', connector=dict(type='ConvConnector'),
    loss=dict(type='CWDLoss', tau=1.0, standardise=True),
    until=0.93))  # 280 of RTMDet's 300 epochs
distill_weights = dict(cwd_norm=1)
custom_hooks = [dict(type='DistillationHook')]
