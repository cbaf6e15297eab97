# Factor transfer on the map that is pooled, see spkd.py: a paraphraser learns factors of the
# teacher, and the student's translator imitates them, with weight 200 (RepDistiller) after 30
# epochs of warm-up.
# When: between networks of different widths and depths: what is taught are factors that a trained
# paraphraser finds.
terms = dict(ft=dict(
    tap='backbone.embedding:input', weight=1.0, warmup_epochs=30, warmup='gaussian',
    loss=dict(type='FTLoss', rate=0.5, transfer_weight=200.0)))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
