"""The picture that compares detectors: its columns, and boxes where the labels are."""

from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import torch
from helpers import DRAWN_DETECTOR
from mmengine.config import Config

from mmkd.detection.data import draw_dataset
from mmkd.registry import MODELS
from mmkd.visualization.comparison import HEIGHT, MARGIN, TITLE, Column, draw_comparison


def test_a_column_each_and_boxes_where_the_labels_are(tmp_path, monkeypatch):
    monkeypatch.setenv('DRAWN_ROOT', str(draw_dataset(
        tmp_path / 'data', splits=dict(train=1, val=1, test=3), image_size=64)))
    config, weights = tmp_path / 'a.py', tmp_path / 'a.pth'
    config.write_text(DRAWN_DETECTOR.format(root=Path(__file__).parents[2], width=8))
    torch.save(MODELS.build(Config.fromfile(config).model).state_dict(), weights)
    detector = Column('a', config, weights)
    out = tmp_path / 'picture.png'
    paths = draw_comparison([detector, detector], out, count=2)
    assert [path[-9:-4] for path in paths] == ['00000', '00002']
    picture = cv2.imread(str(out))
    width = HEIGHT + 2 * MARGIN
    assert picture.shape == (TITLE + 2 * width, 3 * width, 3)
    cell = picture[TITLE + MARGIN:TITLE + MARGIN + HEIGHT, MARGIN:MARGIN + HEIGHT].astype(int)
    plain = cv2.resize(cv2.imread(paths[0]), (HEIGHT, HEIGHT)).astype(int)
    changed = np.abs(cell - plain).max(2) > 40
    root = ElementTree.parse(paths[0].replace('JPEGImages', 'Annotations')[:-4] + '.xml')
    boxes = [[float(b.find(tag).text) - (tag in ('xmin', 'ymin')) for tag in
              ('xmin', 'ymin', 'xmax', 'ymax')] for b in root.iterfind('object/bndbox')]
    assert boxes
    for left, _, _, bottom in boxes:
        # Its left lower corner: names are written above.
        x, y = round(left * HEIGHT / 64), round(bottom * HEIGHT / 64)
        assert changed[max(0, y - 5):y + 5, max(0, x - 4):x + 5].any()
