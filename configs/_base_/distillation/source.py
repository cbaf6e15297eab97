# source: the reading closest to the publication, between CenterNets.
# For the rows of its tables: mean square of heatmaps, sizes and offsets at the teacher's maxima,
# attention on features, every teacher with the same say. Name it in `_base_` in place of joint.py.
# Paper: Liu, Du, She, Yang, Systems Engineering and Electronics 46(4), 2024.
# When: to compare with the publication's own tables; joint.py ended above it in each of our five
# studies.
terms = dict(
    heatmap=dict(
        type='CenterNetTerm', map='heatmap', loss=dict(type='HeatmapLoss'), joint='each'),
    wh=dict(type='CenterNetTerm', map='wh', loss=dict(type='PeakWidthHeightLoss'), joint='each'),
    offset=dict(
        type='CenterNetTerm', map='offset', loss=dict(type='PeakOffsetLoss'), joint='each'),
    attention=dict(type='FeatureTerm', loss=dict(type='AttentionLoss'), joint='each'))
distill_weights = (1000, 1, 0.1, 100)  # in the order of the terms, as the source writes them
custom_hooks = [dict(type='DistillationHook')]
