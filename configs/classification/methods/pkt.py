# Probabilistic knowledge transfer on the embeddings, weight 30000 (RepDistiller).
terms = dict(pkt=dict(tap='backbone.embedding', weight=30000.0, loss=dict(type='PKTLoss')))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
