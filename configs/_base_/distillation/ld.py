# LD: where the edges of boxes lie, on objects and near them, and classes; between GFLs.
# When: between GFLs, whose edges of boxes are distributions. With many objects in a batch give it
# a share of the gradient, terms.ld.gradient_share=0.3: as published it made the student worse in
# our study.
terms = dict(ld=dict(type='DenseTerm', loss=dict(
    type='LDLoss', main_weight=0.25, vlr_weight=0.25, class_weight=10.0, temperature=10.0,
    class_temperature=2.0)))
distill_weights = dict(ld=1)
custom_hooks = [dict(type='DistillationHook')]
