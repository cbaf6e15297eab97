# KD-DETR: both decoders asked at the teacher's queries and at drawn ones; DETRs of a family.
# When: between DETRs whose queries differ: both decoders are asked at the same points.
terms = dict(kd_detr=dict(type='KDDETRTerm', points=300, loss=dict(
    type='KDDETRLoss', class_weight=8.0, box_weight=5.0, giou_weight=2.0, temperature=10.0)))
distill_weights = dict(kd_detr=1)
custom_hooks = [dict(type='DistillationHook')]
