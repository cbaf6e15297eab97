# PCL: every peer sees an augmentation of its own, and imitates a classifier on all embeddings and
# the moving averages of the other peers. T = 3, 80 epochs of warm-up; the paper has three peers,
# and deploys a moving average: NAME.mean.pth.
# When: with three members or more; what is deployed is the moving average of a member.
_base_ = '../../_base_/classification/cifar_300e.py'

data_preprocessor = dict(views='{{$MMKD_MEMBERS:resnet32,resnet32}}'.count(',') + 1)
teachers = dict(mean=dict(ema=0.999))
terms = dict(pcl=dict(
    tap=['members.*.backbone.embedding', 'members.*.head.fc'], weight=1.0, warmup_epochs=80,
    warmup='gaussian', loss=dict(type='PCLLoss', temperature=3.0),
    connector=dict(type='PeerEnsemble')))
custom_hooks = [
    dict(type='DistillationHook'),
    dict(type='BestAndLastHook'),
    dict(type='MeanMembersHook'),
]
