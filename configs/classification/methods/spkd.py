# Similarity-preserving KD on the map that is pooled, weight 3000.
custom_hooks = [
    dict(type='TeacherHook'),
    dict(type='BestAndLastHook'),
    dict(
        type='DistillHook', tap='backbone.embedding:input', weight=3000.0,
        loss=dict(type='SimilarityPreservingLoss')),
]
