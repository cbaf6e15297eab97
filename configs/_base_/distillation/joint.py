# Multi-teacher joint distillation on CenterNet. A leaf config adds the two lines
#   teachers = dict(NAME=dict(config=..., checkpoint=...), ...)
#   distill_weights = (w1, w2, w3, w4)    # heatmap, width-height, offset, attention
custom_hooks = [
    dict(type='TeacherHook'),
    dict(type='HeatmapDistillHook'),
    dict(type='WidthHeightDistillHook'),
    dict(type='OffsetDistillHook'),
    dict(type='AttentionDistillHook'),
]
