# CS-KD: an image learns from what the network says of another one of its class, T = 4, weight 1. As
# in its authors' code a batch holds as many partners as images, and the partners have no
# cross-entropy: twice the batch size makes the same steps.
# When: for classes with many different images: two images of a class are to have the same
# prediction. A batch holds twice the images.
_base_ = '../../_base_/classification/{{$MMKD_DATA:cifar100}}.py'

data_preprocessor = dict(pairs=True)
train_dataloader = dict(
    batch_size=512 if '{{$MMKD_DATA:cifar100}}' == 'imagenet' else 128,
    batch_sampler=dict(type='PairSampler'),
    drop_last=False)
teachers = dict(partner=dict(partners=True))
terms = dict(cs_kd=dict(tap='head.fc', weight=1.0, loss=dict(type='CSKDLoss', temperature=4.0)))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
