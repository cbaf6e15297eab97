# Probabilistic knowledge transfer on the embeddings, weight 30000 (RepDistiller).
custom_hooks = [
    dict(type='TeacherHook'),
    dict(type='BestAndLastHook'),
    dict(
        type='DistillHook', tap='backbone.embedding', weight=30000.0, loss=dict(type='PKTLoss')),
]
