"""The data set configs build and give what a CenterNet takes."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import MEAN, STD
from mmengine.config import Config
from mmengine.runner import Runner

from mmkd.detection.data import draw_dataset
from mmkd.registry import MODELS

BOX_IN_64 = ('<annotation><size><width>64</width><height>128</height></size><object>'
             '<name>disc</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>50</xmax>'
             '<ymax>90</ymax></bndbox></object></annotation>')
CONFIGS = Path(__file__).parents[3] / 'configs' / '_base_' / 'datasets'


def load(name):
    config = Config.fromfile(CONFIGS / f'{name}.py')
    for split in ('train', 'val', 'test'):
        config[f'{split}_dataloader'].update(num_workers=0, persistent_workers=False, batch_size=2)
    return config


def batches(config, split):
    return list(Runner.build_dataloader(config[f'{split}_dataloader'], seed=0))


@pytest.fixture
def drawn(tmp_path):
    return draw_dataset(tmp_path / 'drawn', splits=dict(train=4, val=2, test=3), image_size=128)


@pytest.mark.parametrize('name', ['bccd', 'coco', 'drawn', 'voc0712'])
def test_what_every_config_defines(name):
    config = load(name)
    assert config.num_classes == len(config.classes)
    assert {'image_size', 'data_root', 'train_dataloader', 'val_dataloader', 'test_dataloader',
            'val_evaluator', 'test_evaluator'} <= set(config)
    for split in ('val', 'test'):
        steps = config[f'{split}_dataloader'].dataset.pipeline
        assert config[f'{split}_dataloader'].dataset.test_mode
        assert 'RandomCenterCropPad' not in [step.type for step in steps]
        assert steps[-1].meta_keys == ('img_id', 'img_path', 'ori_shape', 'img_shape',
                                       'scale_factor')


def test_coco_has_mmdetections_classes():
    from mmdet.datasets import CocoDataset
    assert load('coco').classes == CocoDataset.METAINFO['classes']


def test_drawn_batches_are_trainable(drawn, monkeypatch):
    monkeypatch.setenv('DRAWN_ROOT', str(drawn))
    config = load('drawn')
    train, test = batches(config, 'train'), batches(config, 'test')
    assert sum(len(batch['inputs']) for batch in train) == 4
    seen = 0
    for batch in train:
        for image, sample in zip(batch['inputs'], batch['data_samples'], strict=True):
            assert image.shape == (3, 128, 128)
            boxes = sample.gt_instances.bboxes.tensor
            assert (boxes[:, 2:] > boxes[:, :2]).all()
            assert ((boxes >= 0) & (boxes <= 128)).all()
            seen += len(boxes)
    assert seen > 0
    names = [sample.img_id for batch in test for sample in batch['data_samples']]
    assert names == ['test_00000', 'test_00001', 'test_00002']


def test_voc_at_512_pads_with_what_the_preprocessor_makes_0(drawn, tmp_path, monkeypatch):
    devkit = tmp_path / 'VOCdevkit'
    devkit.mkdir()
    for year in ('VOC2007', 'VOC2012'):
        (devkit / year).symlink_to(drawn)
    # White, tall photographs: right of them is padding.
    for path in (drawn / 'JPEGImages').iterdir():
        cv2.imwrite(str(path), np.full((128, 64, 3), 255, np.uint8))
    for path in (drawn / 'Annotations').iterdir():
        path.write_text(BOX_IN_64)
    monkeypatch.setenv('VOC_ROOT', str(devkit))
    config = load('voc0712')
    for loader in ('train', 'val'):
        sets = config[f'{loader}_dataloader'].dataset
        for part in sets.get('datasets', [sets]):
            part.metainfo = dict(classes=load('drawn').classes)
    preprocess = MODELS.build(dict(
        type='DetDataPreprocessor', mean=MEAN, std=STD, bgr_to_rgb=True,
        pad_size_divisor=config.image_size))
    train = batches(config, 'train')
    assert sum(len(batch['inputs']) for batch in train) == 2 * (4 + 2)
    images = torch.cat([preprocess(batch, True)['inputs'] for batch in train])
    assert images.shape[1:] == (3, 512, 512)
    # 512 x 256 pixels of photograph at scale 1: in a crop of up to 1.3 x 512 some is padding,
    # and it is 0 where no photometric distortion, applied before, could put it.
    assert (images.abs() < 1e-4).all(1).flatten(1).float().mean(1).min() > 0.1
    test = preprocess(batches(config, 'val')[0], False)
    assert test['inputs'].shape == (2, 3, 512, 512)
    assert test['data_samples'][0].img_shape == (512, 256)
    assert (test['inputs'][:, :, :, 256:] == 0).all()
    assert (test['inputs'][:, :, :, :256] > 2).all()


def test_bccd_reads_one_folder_with_its_own_splits(drawn, monkeypatch):
    monkeypatch.setenv('BCCD_ROOT', str(drawn))
    config = load('bccd')
    assert config.classes == ('RBC', 'WBC', 'Platelets')
    for split in ('train', 'val', 'test'):
        config[f'{split}_dataloader'].dataset.metainfo = dict(classes=load('drawn').classes)
        sample = batches(config, split)[0]['data_samples'][0]
        assert sample.img_id == f'{split}_00000' or split == 'train'
        assert sample.img_path.startswith(f'{drawn}/JPEGImages/{split}_')
