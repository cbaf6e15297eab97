# BCCD at 160 px, judged by COCO's average precision beside PASCAL VOC's: the mean over the
# intersections from 0.5 to 0.95, which asks for exact boxes.
_base_ = './bccd_small.py'
image_size = 160

test_pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=(image_size, image_size), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),  # after Resize: the boxes keep their size
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'instances')),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_evaluator = [
    dict(type='VOCMeanAPMetric'),
    dict(type='CocoMetric', metric='bbox'),
]
test_evaluator = val_evaluator
