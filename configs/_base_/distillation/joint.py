# joint: soft focal, sizes, offsets and PKD from CenterNets; the default between CenterNets.
# The recommended recipe: what distils best on the data sets of docs/results.md, whatever the number
# of classes or the size of the image. The config that names it also names `teachers`.
# Paper: Liu, Du, She, Yang, Systems Engineering and Electronics 46(4), 2024; the formulas are
# those of the losses below.
# When: first between CenterNets: in each of our five studies it ended above the reading of the
# source.
terms = dict(
    heatmap=dict(
        type='CenterNetTerm', map='heatmap', loss=dict(type='SoftFocalLoss', balance=True)),
    wh=dict(type='CenterNetTerm', map='wh', loss=dict(type='WidthHeightLoss')),
    offset=dict(type='CenterNetTerm', map='offset', loss=dict(type='OffsetLoss')),
    feature=dict(type='FeatureTerm', loss=dict(type='PKDLoss')))
# A student from scratch takes more of the features: feature=50, see docs/recipe.md.
distill_weights = dict(heatmap=5, wh=1, offset=0.1, feature=2)
custom_hooks = [dict(type='DistillationHook')]
