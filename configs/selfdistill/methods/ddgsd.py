# DDGSD: two distorted views of every image in the batch say the same. The paper adds up the
# cross-entropies of the views, this classifier takes their mean: hence half the weight. On ImageNet
# the views differ by the mirror alone, since the workers cut the images out.
# When: where a distortion of the photograph should not change what is said of it. A step costs two
# views of each image.
_base_ = '../../_base_/classification/{{$MMKD_DATA:cifar100}}.py'

data_preprocessor = dict(views=2)
terms = dict(ddgsd=dict(
    type='SelfTerm', tap=['backbone.embedding', 'head.fc'], weight=0.5,
    loss=dict(type='DDGSDLoss', temperature=4.0, mmd_weight=5e-4)))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
