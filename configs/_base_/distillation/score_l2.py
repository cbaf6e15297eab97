# score_l2: the square between feature maps where the teacher is sure of an object.
# Paper: none; the knowledge distillation of Ultralytics YOLO 8.4.
# When: where most cells are background and the teacher has a dense head: what it is sure of
# counts.
terms = dict(score_l2=dict(
    type='ScoreTerm', tap='neck:*', match='stride', size='teacher',
    connector=dict(type='MLPConnector'), loss=dict(type='ScoreWeightedL2Loss')))
distill_weights = dict(score_l2=6)
custom_hooks = [dict(type='DistillationHook')]
