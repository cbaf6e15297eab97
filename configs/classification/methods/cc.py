# Correlation congruence of the embeddings of a batch, by a Gaussian kernel's Taylor series. CCLoss
# says where the weight comes from.
# When: where relations between the images of a batch are to be taught beside single predictions.
terms = dict(cc=dict(
    tap='backbone.embedding', weight=100.0, loss=dict(type='CCLoss', gamma=0.4, order=2)))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
