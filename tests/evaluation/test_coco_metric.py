"""COCO's metric where the classes are in another order than the categories of the file."""

import json
from itertools import permutations

import pytest
import torch

from mmkd.registry import METRICS

BOXES = dict(cat=[1.0, 2.0, 30.0, 40.0], dog=[20.0, 5.0, 50.0, 45.0], owl=[3.0, 3.0, 20.0, 20.0])
NUMBERS = dict(dog=7, owl=3, cat=9)


@pytest.mark.parametrize('classes', permutations(BOXES))
def test_each_class_has_its_own_precision(classes, tmp_path, capsys):
    """The cat is found, the dog is taken for an owl, the owl not found."""
    (tmp_path / 'test.json').write_text(json.dumps(dict(
        images=[dict(id=1, file_name='a.jpg', width=64, height=48)],
        annotations=[dict(id=i, image_id=1, category_id=NUMBERS[name], area=900, iscrowd=0,
                          bbox=[x1, y1, x2 - x1, y2 - y1])
                     for i, (name, (x1, y1, x2, y2)) in enumerate(BOXES.items(), 1)],
        categories=[dict(id=number, name=name) for name, number in NUMBERS.items()])))
    metric = METRICS.build(dict(type='CocoMetric', ann_file=str(tmp_path / 'test.json'),
                                classwise=True))
    metric.dataset_meta = dict(classes=classes)
    found = dict(bboxes=torch.tensor([BOXES['cat'], BOXES['dog']]), scores=torch.tensor([0.9, 0.8]),
                 labels=torch.tensor([classes.index('cat'), classes.index('owl')]))
    metric.process({}, [dict(img_id=1, ori_shape=(48, 64), pred_instances=found)])
    metrics = metric.evaluate(1)
    # Beside the table of mmdet's logger, whose lines are there if a logger is.
    said = capsys.readouterr().out
    assert len([line for line in said.splitlines() if line.startswith(' Average ')]) == 12
    assert 'Accumulating' not in said and 'DONE' not in said and 'Loading' not in said
    precision = {name: metrics[f'coco/{name}_precision'] for name in classes}
    assert precision == pytest.approx(dict(cat=1, dog=0, owl=0))
    assert metrics['coco/bbox_mAP'] == pytest.approx(1 / 3, abs=1e-3)
