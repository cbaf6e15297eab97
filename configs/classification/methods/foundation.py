# foundation: the direction of each cell of another network's last features (cosine); the weight
# follows from the gradients. The teacher is a backbone alone, `--teacher timm:NAME=CHECKPOINT` or
# `--teacher hf:FOLDER`, or a classifier of mmkd.
# When: where the teacher has no classes, or others: DINO, CLIP and their kin.
terms = dict(foundation=dict(
    tap='backbone.embedding:input', size='student', gradient_share=0.11,
    connector=dict(type='ConvConnector'), loss=dict(type='CosineLoss')))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
