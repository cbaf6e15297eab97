"""One tiny detector, exported once, and a few images of all shapes."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from helpers import CLASSES, build, centernet
from mmengine.config import Config, ConfigDict
from torch import nn

SIZE = 64


def pipeline(size=SIZE):
    return [dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(size, size), keep_ratio=True),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='PackDetInputs',
                 meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]


def config_of(model, classes=CLASSES):
    """What a config that trains ``model`` says about testing it."""
    dataset = dict(type='VOCDataset', metainfo=dict(classes=classes), pipeline=pipeline())
    return Config(dict(default_scope='mmkd', model=model,
                       test_dataloader=dict(dataset=dataset)))


def lively(config):
    """Build a detector whose scores, sizes and offsets differ from place to place."""
    model = build(config)
    torch.manual_seed(1)
    for module in model.modules():
        if hasattr(module, 'conv_offset'):
            nn.init.normal_(module.conv_offset.weight, std=0.1)
    head = model.bbox_head
    for branch in (head.heatmap_head, head.wh_head, head.offset_head):
        nn.init.normal_(branch[0].weight, std=0.3)
        nn.init.normal_(branch[-1].weight, std=0.5)
    model.cfg, model.dataset_meta = config_of(config), dict(classes=CLASSES)
    return model.eval()


@pytest.fixture(scope='session')
def detector_config():
    """Two stages of a ResNet and one deconvolution: few layers, so that it exports fast."""
    config = centernet(deconvs=1)
    config.backbone.update(num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(1,))
    config.neck.in_channels = 8
    config.test_cfg = ConfigDict(topk=100, local_maximum_kernel=3, max_per_img=100)
    return config


@pytest.fixture(scope='session')
def images(tmp_path_factory):
    """Paths of photographs' stand-ins: smooth noise, landscape, portrait, odd, tiny, exact."""
    folder = tmp_path_factory.mktemp('images')
    generator = np.random.default_rng(0)
    for i, (height, width) in enumerate([(75, 100), (101, 37), (33, 20), (64, 64), (20, 127)]):
        coarse = generator.integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f'{i}.png'), cv2.resize(coarse, (width, height)))
    return sorted(folder.glob('*.png'))


@pytest.fixture(scope='session')
def exported(detector_config, images, tmp_path_factory):
    """The detector as trained (config and checkpoint files), loaded, and exported."""
    from mmkd.deploy.export import export_onnx, load_model
    folder = tmp_path_factory.mktemp('exported')
    cfg = config_of(detector_config)
    cfg.dump(folder / 'config.py')
    trained = lively(detector_config)
    torch.save(dict(state_dict=trained.state_dict(),
                    meta=dict(dataset_meta=dict(classes=CLASSES))), folder / 'epoch_1.pth')
    model = load_model(Config.fromfile(folder / 'config.py'), folder / 'epoch_1.pth')
    checks = export_onnx(model, folder / 'student.onnx', images)
    return SimpleNamespace(folder=folder, model=model, checks=checks,
                           onnx=folder / 'student.onnx', config=folder / 'config.py',
                           checkpoint=folder / 'epoch_1.pth')
