"""Which images int8 models are calibrated on."""

import cv2
import numpy as np
import pytest
from helpers import CLASSES
from mmengine.config import Config
from reference import write_folders

from mmkd.deploy.export.calibration import calibration_images, draw_images, image_files
from mmkd.detection.data.synthetic import draw_dataset
from mmkd.errors import UserError


@pytest.fixture
def voc(tmp_path):
    """Ten training images and two for testing."""
    return draw_dataset(tmp_path / 'voc', splits=dict(train=10, test=2), image_size=32)


def config(dataset):
    return Config(dict(default_scope='mmkd', train_dataloader=dict(dataset=dataset)))


def voc_dataset(root):
    return dict(type='VOCLayoutDataset', data_root=str(root), pipeline=[],
                ann_file='ImageSets/Main/train.txt', metainfo=dict(classes=CLASSES))


def test_files_of_the_training_data(voc):
    drawn = calibration_images(config(voc_dataset(voc)), 4)
    assert len(set(drawn)) == 4
    assert drawn == sorted(drawn) == calibration_images(config(voc_dataset(voc)), 4)
    others = [calibration_images(config(voc_dataset(voc)), 4, seed=seed) for seed in range(1, 5)]
    assert any(other != drawn for other in others)
    everything = sorted(map(str, voc.glob('JPEGImages/train*')))
    assert len(everything) == 10
    assert calibration_images(config(voc_dataset(voc)), 100) == everything
    wrapped = dict(type='RepeatDataset', times=1, dataset=dict(
        type='ConcatDataset', datasets=[voc_dataset(voc)]))
    assert calibration_images(config(wrapped), 100) == everything


def test_images_that_the_data_set_holds(tmp_path):
    write_folders(tmp_path, 'ab', [(4, 6)])
    held, files = (calibration_images(config(dict(type=kind, data_root=str(tmp_path))), 2)
                   for kind in ('ImageFolderInMemory', 'ImageNetFolder'))
    for image, file in zip(held, files, strict=True):
        np.testing.assert_array_equal(image, cv2.imread(file))


def test_files_that_the_user_names(voc):
    files = image_files([voc / 'JPEGImages', next(voc.glob('JPEGImages/train_*3.*'))])
    assert len(files) == 13
    assert draw_images(files, 100) == files
    assert len(draw_images(files, 5)) == 5
    with pytest.raises(UserError, match=r"'none' does not exist"):
        image_files(['none'])
    (voc / 'film.mp4').touch()
    with pytest.raises(UserError, match='names videos alone'):
        image_files([voc / 'film.mp4'])
    with pytest.raises(UserError, match='--calibration is 0'):
        draw_images(files, 0)


def test_training_data_that_does_not_serve(voc):
    with pytest.raises(UserError, match='has no train_dataloader to calibrate on'):
        calibration_images(Config(dict(default_scope='mmkd')))
    with pytest.raises(UserError, match='a NoiseDetection, which does not tell its images'):
        calibration_images(config(dict(type='NoiseDetection')))
    with pytest.raises(UserError, match='--calibration is -1'):
        calibration_images(config(voc_dataset(voc)), -1)
    missing = voc_dataset(voc) | dict(ann_file='ImageSets/Main/none.txt')
    with pytest.raises(UserError, match=r'none.txt does not exist'):
        calibration_images(config(missing))
