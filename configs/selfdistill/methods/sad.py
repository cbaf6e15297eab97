# SAD: every stage looks where the next one looks. The paper's weight, 0.1, is for lane detection;
# at 10 the gradient is a quarter of the cross-entropy's (ResNet20, CIFAR-10, after 6 epochs).
# When: in a network that is partly trained already, as in its paper; it adds no parameters.
_base_ = '../../_base_/classification/{{$MMKD_DATA:cifar100}}.py'

terms = dict(sad=dict(
    type='SelfTerm', tap='backbone.stage?', weight=10.0, loss=dict(type='SADLoss')))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
