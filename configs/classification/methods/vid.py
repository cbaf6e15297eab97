# Variational information distillation on every stage, weight 1 (RepDistiller).
# When: where the features of the student can predict those of the teacher only in part: channels
# that cannot be predicted count less.
terms = dict(vid=dict(tap='backbone.stage?', weight=1.0, loss=dict(type='VIDLoss')))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
