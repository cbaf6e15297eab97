# FSECD, instance-level: the student's embedding, brought into the teacher's feature space, against
# the teacher's embeddings of the batch. The source prints neither weight nor temperature.
terms = dict(fsecd=dict(
    tap='backbone.embedding', weight=1.0,
    loss=dict(type='FSECDLoss', policy='instance', temperature=0.1),
    connector=dict(type='LinearConnector')))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
