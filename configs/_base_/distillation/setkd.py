# Set matching: the teacher's queries are soft truths of the student's; between DETRs.
# When: between DETRs, where the outputs alone are to be taught.
terms = dict(setkd=dict(type='DETRTerm', loss=dict(
    type='SetKDLoss', class_weight=1.0, box_weight=5.0, giou_weight=2.0)))
distill_weights = dict(setkd=1)
custom_hooks = [dict(type='DistillationHook')]
