# Relational KD on the embeddings: distances 25, angles 50.
# When: for embeddings that are compared by distance; its memory grows with the third power of the
# batch.
terms = dict(rkd=dict(
    tap='backbone.embedding', weight=1.0,
    loss=dict(type='RKDLoss', distance_weight=25.0, angle_weight=50.0)))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
