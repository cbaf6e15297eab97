# KDCL: every member sees a distorted view of its own, and all imitate one ensemble ('minlogit';
# also 'naive', 'linear', and 'general', with weights from each batch and not, as in the paper, from
# a validation set). Temperature and weight are this project's choice.
# When: where each member can see a view of its own: all imitate the ensemble, of which the form
# can be chosen.
_base_ = '../../_base_/classification/cifar_300e.py'

data_preprocessor = dict(views='{{$MMKD_MEMBERS:resnet32,resnet32}}'.count(',') + 1)
terms = dict(kdcl=dict(
    type='SelfTerm', tap='members.*.head.fc', weight=1.0,
    loss=dict(type='KDCLLoss', ensemble='minlogit', temperature=2.0)))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
