# Overhaul of feature distillation: every stage before its last ReLU, weight 1e-3; on ImageNet
# 1e-4 (the authors' code).
# When: between networks with the same number of stages, of any widths: what the teacher does not
# use is not copied.
on_imagenet = '{{$MMKD_DATA:cifar100}}' == 'imagenet'
terms = dict(ofd=dict(
    tap='backbone.stage?.preact', weight=1e-4 if on_imagenet else 1e-3, loss=dict(type='OFDLoss'),
    connector=dict(type='OFDConnector')))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
