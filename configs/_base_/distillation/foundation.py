# foundation: the direction of each cell of a foundation model's features (cosine).
# When: first with a backbone alone as the teacher (DINO, CLIP); it says nothing of boxes.
terms = dict(foundation=dict(
    tap='backbone:-1', teacher_tap='features', size='student', gradient_share=0.11,
    connector=dict(type='ConvConnector'), loss=dict(type='CosineLoss')))
custom_hooks = [dict(type='DistillationHook')]
