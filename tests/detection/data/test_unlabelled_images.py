"""A folder of images without labels, some of them damaged."""

import cv2
import numpy as np
import pytest
from photo_folders import image

from mmkd.detection.data import UnlabelledImages
from mmkd.errors import UserError

PIPELINE = [dict(type='LoadImage'), dict(type='LoadAnnotations', with_bbox=True),
            dict(type='Resize', scale=(40, 40), keep_ratio=True), dict(type='PackDetInputs')]


def _folder(root, **contents):
    """Write images of one grey each; None stands for a file that is none."""
    for name, grey in contents.items():
        path = root / f'{name}.png'
        image(path)
        if grey is None:
            path.write_bytes(path.read_bytes()[:-20])
        else:
            cv2.imwrite(str(path), np.full((40, 40, 3), grey, np.uint8))
    return str(root)


def _greys(dataset):
    return [int(sample['inputs'].float().mean()) for sample in dataset]


def test_all_images_at_any_depth_but_the_hidden_ones(tmp_path):
    _folder(tmp_path, b=20, a=10)
    _folder(tmp_path / 'deep/er', c=30)
    _folder(tmp_path / '.thumbnails', d=40)
    (tmp_path / 'notes.txt').write_text('no image')
    found = UnlabelledImages(str(tmp_path), PIPELINE, dict(classes=('cat', 'dog')))
    assert _greys(found) == [10, 20, 30]
    assert found.metainfo['classes'] == ('cat', 'dog')
    assert found[2]['data_samples'].img_path == str(tmp_path / 'deep/er/c.png')
    assert len(found[0]['data_samples'].gt_instances.bboxes) == 0


def test_a_damaged_image_is_replaced_by_the_next_and_named(tmp_path):
    found = UnlabelledImages(_folder(tmp_path, a=10, b=None, c=None, d=40, e=None), PIPELINE)
    assert _greys(found) == [10, 40, 40, 40, 10]
    named = [sample['data_samples'].metainfo.get('skipped') for sample in found]
    assert named[0] is None and named[3] is None
    assert list(named[1]) == [str(tmp_path / 'b.png'), str(tmp_path / 'c.png')]
    assert list(named[4]) == [str(tmp_path / 'e.png')]
    assert f'{tmp_path}/b.png is cut off' in named[1][str(tmp_path / 'b.png')]


def test_nothing_to_learn_from(tmp_path):
    with pytest.raises(UserError, match=r"no folder '.*nowhere' \(unlabelled.data_root\)"):
        UnlabelledImages(str(tmp_path / 'nowhere'), PIPELINE)
    with pytest.raises(UserError, match='holds no image'):
        UnlabelledImages(str(tmp_path), PIPELINE)
    found = UnlabelledImages(_folder(tmp_path, a=None, b=None), PIPELINE)
    with pytest.raises(UserError, match=r'none of the 2 images in .* can be read: .*b.png is cut'):
        found[1]


def test_a_transform_that_wants_objects_is_named(tmp_path):
    crop = dict(type='RandomCrop', crop_size=(8, 8))
    found = UnlabelledImages(_folder(tmp_path, a=10), [*PIPELINE[:2], crop, PIPELINE[-1]])
    with pytest.raises(UserError, match='RandomCrop of the training pipeline makes nothing of'):
        found[0]
