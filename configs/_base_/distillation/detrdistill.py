# DETRDistill: set matching, features where queries look, the teacher's queries; DETRs of a family.
# When: between Deformable DETRs and their like, where features and queries are to be taught beside
# the outputs.
terms = dict(
    logits=dict(type='DETRTerm', loss=dict(
        type='SetKDLoss', class_weight=1.0, box_weight=5.0, giou_weight=2.0)),
    features=dict(type='DETRFeatureTerm', loss=dict(
        type='TargetAwareLoss', count=100, floor=0.01)),
    queries=dict(type='DETRQueryTerm', loss=dict(type='QueryPriorLoss')))
distill_weights = dict(logits=1, features=1, queries=1)
custom_hooks = [dict(type='DistillationHook')]
