# ReviewKD: every stage (the teacher's before its last ReLU) and the embedding, 20 epochs of
# warm-up. The paper chooses the weight for each pair, from 0.6 to 8; 5 is for ResNet-32x4 and 8x4.
terms = dict(review_kd=dict(
    tap=['backbone.stage?', 'backbone.embedding'],
    teacher_tap=['backbone.stage?.preact', 'backbone.embedding'], weight=5.0, warmup_epochs=20,
    loss=dict(type='ReviewKDLoss'), connector=dict(type='ReviewConnector')))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
