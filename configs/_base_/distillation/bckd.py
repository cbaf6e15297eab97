# BCKD: classes and boxes, most where the two differ; between GFL, RetinaNet, ATSS, FCOS heads.
# When: between dense heads, to teach classes and boxes and nothing of features; in our one study
# it gained nothing.
terms = dict(bckd=dict(type='DenseTerm', loss=dict(
    type='BCKDLoss', class_weight=1.0, box_weight=4.0, beta=1.0)))
distill_weights = dict(bckd=1)
custom_hooks = [dict(type='DistillationHook')]
