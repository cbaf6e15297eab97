# The reading that is closest to the source (Liu, Du, She, Yang 2024), for the rows of its tables:
# mean square of heatmaps, sizes and offsets at the teacher's maxima, attention on features, every
# teacher with the same say. Name it in `_base_` in place of joint.py.
custom_hooks = [
    dict(type='TeacherHook'),
    dict(type='HeatmapDistillHook', loss=dict(type='HeatmapLoss'), joint='each'),
    dict(type='WidthHeightDistillHook', loss=dict(type='PeakWidthHeightLoss'), joint='each'),
    dict(type='OffsetDistillHook', loss=dict(type='PeakOffsetLoss'), joint='each'),
    dict(type='AttentionDistillHook'),
]
distill_weights = (1000, 1, 0.1, 100)  # heatmap, width-height, offset, attention
