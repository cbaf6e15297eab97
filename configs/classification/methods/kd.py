# Hinton et al.: 0.1 CE + 0.9 KD at T = 4; on ImageNet 0.5 CE + 0.5 KD at T = 1, as in mdistiller,
# whose numbers the published table has. With several TEACHERs it is the mean of their losses, whose
# gradient is that of their averaged probabilities.
# When: first: it is the simplest, needs logits alone, and is what methods are compared with.
on_imagenet = '{{$MMKD_DATA:cifar100}}' == 'imagenet'
model = dict(ce_weight=0.5 if on_imagenet else 0.1)
terms = dict(kd=dict(
    tap='head.fc', weight=0.5 if on_imagenet else 0.9,
    loss=dict(type='KDLoss', temperature=1.0 if on_imagenet else 4.0)))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
