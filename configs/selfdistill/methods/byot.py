# BYOT: classifiers behind the shallow stages learn from the labels and from the deepest one; they
# are gone after training. alpha 0.3, T = 3 and the hint's 0.03: see BYOTLoss.
# When: where classifiers behind shallow stages are useful in training; they are gone afterwards.
_base_ = '../../_base_/classification/{{$MMKD_DATA:cifar100}}.py'

terms = dict(byot=dict(
    type='SelfTerm', tap=['backbone.stage?', 'backbone.embedding', 'head.fc'], weight=1.0,
    connector=dict(type='AuxiliaryClassifiers'),
    loss=dict(type='BYOTLoss', alpha=0.3, temperature=3.0, hint_weight=0.03)))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
