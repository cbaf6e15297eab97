# The recommended recipe: what distils best on the data sets of docs/results.md, whatever the number
# of classes or the size of the image. A leaf config adds
#   teachers = dict(NAME=dict(config=..., checkpoint=...), ...)
custom_hooks = [
    dict(type='TeacherHook'),
    dict(type='HeatmapDistillHook'),      # SoftFocalLoss
    dict(type='WidthHeightDistillHook'),  # WidthHeightLoss
    dict(type='OffsetDistillHook'),       # OffsetLoss
    dict(type='FeatureDistillHook'),      # PKDLoss
]
distill_weights = (5, 1, 0.1, 50)  # heatmap, width-height, offset, feature
