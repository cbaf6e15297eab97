# ONE: two more branches behind the last stage but one, a gate on its output that joins the three,
# and each imitates the whole. T = 3, weight 1, Gaussian warm-up over 80 epochs.
# When: where memory allows branches in training: copies of the last stage teach the one that
# stays.
_base_ = '../../_base_/classification/{{$MMKD_DATA:cifar100}}.py'

terms = dict(one=dict(
    type='SelfTerm', tap=['backbone.stage?', 'head.fc'], weight=1.0, warmup_epochs=80,
    warmup='gaussian', loss=dict(type='ONELoss', temperature=3.0, auxiliary_ce=True),
    connector=dict(type='ONEBranches', num_branches=3)))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
