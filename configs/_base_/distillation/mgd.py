# mgd: the teacher's feature maps, generated from masked ones of the student.
# When: where the student has to restore the teacher's features rather than copy them; with
# published weights for one-stage and two-stage detectors.
terms = dict(mgd=dict(
    tap='neck:*', match='stride', size='teacher', connector=dict(type='AlignConnector'),
    loss=dict(type='MGDLoss', alpha=2e-5, mask_ratio=0.65)))
distill_weights = dict(mgd=1)
for_family = dict(two_stage=dict(mgd=dict(loss=dict(alpha=5e-7, mask_ratio=0.45))))
custom_hooks = [dict(type='DistillationHook')]
