# DIST: relations between and within classes, T = 4 on CIFAR.
terms = dict(dist=dict(
    tap='head.fc', weight=1.0, loss=dict(type='DISTLoss', beta=2.0, gamma=2.0, temperature=4.0)))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
