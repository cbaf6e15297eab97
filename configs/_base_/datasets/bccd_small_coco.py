# BCCD at 160 px, judged by COCO's average precision beside PASCAL VOC's: the mean over the
# intersections from 0.5 to 0.95, which asks for exact boxes.
_base_ = './bccd_small.py'

*steps, pack = _base_.test_pipeline
test_pipeline = [*steps, dict(pack, meta_keys=(*pack.meta_keys, 'instances'))]
del steps, pack
val_dataloader = test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_evaluator = [
    dict(type='VOCMeanAPMetric'),
    dict(type='CocoMetric', metric='bbox'),
]
test_evaluator = val_evaluator
