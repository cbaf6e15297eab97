"""The picture that compares detectors: its columns, and boxes where the labels are."""

import cv2
import numpy as np
import pytest
import torch
from helpers import build, centernet
from mmengine.config import Config

from mmkd.detection.data import DRAWN_CLASSES, draw_dataset
from mmkd.visualization.comparison import HEIGHT, MARGIN, TITLE, Column, draw_comparison


@pytest.fixture
def detector(tmp_path):
    draw_dataset(tmp_path / 'data', splits=dict(train=1, val=1, test=3), image_size=64)
    model = centernet(num_classes=len(DRAWN_CLASSES))
    torch.save(dict(state_dict=build(model).state_dict()), tmp_path / 'a.pth')
    pipeline = [dict(type='LoadImage'), dict(type='Resize', scale=(64, 64), keep_ratio=True),
                dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape',
                                                      'img_shape', 'scale_factor'))]
    dataset = dict(type='VOCLayoutDataset', data_root=f'{tmp_path}/data/', pipeline=pipeline,
                   ann_file='ImageSets/Main/test.txt', metainfo=dict(classes=DRAWN_CLASSES),
                   test_mode=True)
    Config(dict(model=model, default_scope='mmkd',
                test_dataloader=dict(dataset=dataset))).dump(tmp_path / 'a.py')
    return Column('a', tmp_path / 'a.py', tmp_path / 'a.pth')


def test_a_column_each_and_boxes_where_the_labels_are(detector, tmp_path):
    out = tmp_path / 'picture.png'
    paths = draw_comparison([detector, detector], out, count=2)
    assert [path[-9:-4] for path in paths] == ['00000', '00002']
    picture = cv2.imread(str(out))
    width = HEIGHT + 2 * MARGIN
    assert picture.shape == (TITLE + 2 * width, 3 * width, 3)
    cell = picture[TITLE + MARGIN:TITLE + MARGIN + HEIGHT, MARGIN:MARGIN + HEIGHT].astype(int)
    plain = cv2.resize(cv2.imread(paths[0]), (HEIGHT, HEIGHT)).astype(int)
    changed = np.abs(cell - plain).max(2) > 40
    from xml.etree import ElementTree
    root = ElementTree.parse(paths[0].replace('JPEGImages', 'Annotations')[:-4] + '.xml')
    boxes = [[float(b.find(tag).text) - (tag in ('xmin', 'ymin')) for tag in
              ('xmin', 'ymin', 'xmax', 'ymax')] for b in root.iterfind('object/bndbox')]
    assert boxes
    for left, _, _, bottom in boxes:
        # Its left lower corner: names are written above.
        x, y = round(left * HEIGHT / 64), round(bottom * HEIGHT / 64)
        assert changed[max(0, y - 5):y + 5, max(0, x - 4):x + 5].any()
