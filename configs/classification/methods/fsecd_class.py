# FSECD, class-level: the student's embedding, brought into the teacher's feature space, against
# the teacher's embeddings of the batch. The source prints neither weight nor temperature.
custom_hooks = [
    dict(type='TeacherHook'),
    dict(type='BestAndLastHook'),
    dict(
        type='DistillHook', tap='backbone.embedding', weight=1.0,
        loss=dict(type='FSECDLoss', policy='class', temperature=0.1),
        connector=dict(type='LinearConnector')),
]
