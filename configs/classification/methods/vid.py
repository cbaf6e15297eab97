# Variational information distillation on every stage, weight 1 (RepDistiller).
terms = dict(vid=dict(tap='backbone.stage?', weight=1.0, loss=dict(type='VIDLoss')))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
