# Contrastive representation distillation on the embeddings, weight 0.8.
# When: for embeddings that are used later, on data with many classes; it keeps an embedding of
# every training image in memory.
terms = dict(crd=dict(
    tap='backbone.embedding', weight=0.8,
    loss=dict(type='CRDLoss', dim=128, num_negatives=16384, temperature=0.07, momentum=0.5)))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
