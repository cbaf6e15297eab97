# fgd: feature maps inside and outside the labelled boxes, attention and relations.
# When: where images have labelled boxes and these cover little of the image: objects and
# background count apart.
terms = dict(fgd=dict(
    tap='neck:*', match='stride', size='teacher', connector=dict(type='AlignConnector'),
    loss=dict(type='FGDLoss')))
distill_weights = dict(fgd=1)
for_family = dict(
    two_stage=dict(fgd=dict(loss=dict(alpha=5e-5, beta=2.5e-5, gamma=5e-5, lambda_=5e-7))),
    fcos=dict(fgd=dict(loss=dict(
        temperature=0.8, alpha=1.6e-3, beta=8e-4, gamma=8e-4, lambda_=8e-6))))
custom_hooks = [dict(type='DistillationHook')]
