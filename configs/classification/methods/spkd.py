# Similarity-preserving KD on the map that is pooled, weight 3000. RepDistiller taps the last stage,
# which is the same but in MobileNetV2 and ShuffleNetV2: they have one more convolution behind it.
# When: where it is to be taught which images of a batch are alike; maps may have any number of
# channels.
terms = dict(spkd=dict(
    tap='backbone.embedding:input', weight=3000.0, loss=dict(type='SimilarityPreservingLoss')))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
