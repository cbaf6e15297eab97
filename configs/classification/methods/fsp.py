# FSP: how the channels of one layer belong to those of the next, weight 50 (RepDistiller), for the
# first 30 epochs. Student and teacher need equal widths.
# When: between networks of equal widths alone: what is taught is how layers follow from one
# another.
terms = dict(fsp=dict(
    tap=['backbone.stem', 'backbone.stage?'], weight=50.0, until=30, loss=dict(type='FSPLoss')))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
