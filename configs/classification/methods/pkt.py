# Probabilistic knowledge transfer on the embeddings, weight 30000 (RepDistiller).
# When: where neighbourhoods of images are to be taught; embeddings may have any number of
# dimensions.
terms = dict(pkt=dict(tap='backbone.embedding', weight=30000.0, loss=dict(type='PKTLoss')))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
