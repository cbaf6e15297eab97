"""Which images int8 models are calibrated on."""

import cv2
import numpy as np
import pytest
from helpers import CLASSES
from mmengine.config import Config

from mmkd.deploy.export.calibration import calibration_images, draw_images, image_files
from mmkd.errors import UserError

NAMES = [f'{number:02}' for number in range(12)]
OBJECT = ('<annotation><object><name>disc</name><difficult>0</difficult><bndbox><xmin>2</xmin>'
          '<ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>')


@pytest.fixture
def voc(tmp_path):
    """Ten training images and two for testing."""
    for name in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
        (tmp_path / 'voc' / name).mkdir(parents=True)
    for name in NAMES:
        cv2.imwrite(str(tmp_path / f'voc/JPEGImages/{name}.png'), np.zeros((16, 16, 3), np.uint8))
        (tmp_path / f'voc/Annotations/{name}.xml').write_text(OBJECT)
    (tmp_path / 'voc/ImageSets/Main/train.txt').write_text('\n'.join(NAMES[:10]))
    return tmp_path / 'voc'


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
    everything = [str(voc / f'JPEGImages/{name}.png') for name in NAMES[:10]]
    assert calibration_images(config(voc_dataset(voc)), 100) == everything
    wrapped = dict(type='RepeatDataset', times=1, dataset=dict(
        type='ConcatDataset', datasets=[voc_dataset(voc)]))
    assert calibration_images(config(wrapped), 100) == everything


def test_images_that_the_data_set_holds(tmp_path):
    for label, colour in (('a', (10, 20, 30)), ('b', (40, 50, 60))):
        for split in ('train', 'test'):
            (tmp_path / split / label).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / split / label / '0.png'),
                        np.full((4, 6, 3), colour, np.uint8))
    held = calibration_images(config(dict(type='ImageFolderInMemory', data_root=str(tmp_path))), 2)
    (tmp_path / 'test').rename(tmp_path / 'val')
    files = calibration_images(config(dict(type='ImageNetFolder', data_root=str(tmp_path))), 2)
    for image, file in zip(held, files, strict=True):
        np.testing.assert_array_equal(image, cv2.imread(file))


def test_files_that_the_user_names(voc):
    files = image_files([voc / 'JPEGImages', voc / 'JPEGImages/03.png'])
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
