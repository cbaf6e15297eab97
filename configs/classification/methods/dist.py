# DIST: relations between and within classes, T = 4 on CIFAR and 1 on ImageNet (the authors' code).
# When: with a teacher much stronger than the student: it asks for the order of classes and images,
# not for the same probabilities.
on_imagenet = '{{$MMKD_DATA:cifar100}}' == 'imagenet'
terms = dict(dist=dict(
    tap='head.fc', weight=1.0,
    loss=dict(type='DISTLoss', beta=2.0, gamma=2.0, temperature=1.0 if on_imagenet else 4.0)))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
