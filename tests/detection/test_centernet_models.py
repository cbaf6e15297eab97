"""Every shipped CenterNet config: it builds, trains on one batch, and is as large as stated."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData

from mmkd.detection.centernet_head import CenterNetHead
from mmkd.detection.hourglass import HourglassNet
from mmkd.registry import MODELS

CONFIGS = Path(__file__).parents[2] / 'configs'
LEAVES = sorted(path.stem for path in (CONFIGS / 'centernet').glob('centernet_*.py'))
# Published parameter counts: torchvision's model tables less the last linear layer.
BACKBONES = {
    'centernet_resnet18': 11_689_512 - 513_000,
    'centernet_resnet34': 21_797_672 - 513_000,
    'centernet_resnet50': 25_557_032 - 2_049_000,
    'centernet_resnet101': 44_549_160 - 2_049_000,
    'centernet_mobilenetv2': 3_504_872 - 1_281_000,
    'centernet_efficientnetb0': 5_288_548 - 1_281_000,
}


def load(name):
    cfg = Config.fromfile(CONFIGS / 'centernet' / f'{name}.py')
    if cfg.model.backbone.get('init_cfg'):
        cfg.model.backbone.init_cfg = None
    return cfg


def num_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def table():
    """Parameters in millions by config, as the README's table says."""
    rows = re.findall(r'^\| \[(\w+)\]\(\w+\.py\) \|.*?\|.*?\| ([\d.]+) \|',
                      (CONFIGS / 'centernet/README.md').read_text(), flags=re.MULTILINE)
    return {name: float(millions) for name, millions in rows}


@pytest.mark.parametrize('name', LEAVES)
def test_config_is_complete(name):
    """And has as many parameters as the table says."""
    text = (CONFIGS / 'centernet' / f'{name}.py').read_text()
    for tool in ('train', 'test', 'export'):
        assert f'# python tools/{tool}.py configs/centernet/{name}.py' in text
    cfg = load(name)
    assert cfg.default_scope == 'mmkd'
    assert cfg.model.bbox_head.num_classes == cfg.num_classes == len(cfg.classes)
    assert cfg.model.data_preprocessor.pad_size_divisor == cfg.image_size == 512
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler[-1].end == 100
    assert cfg.model.neck is None or cfg.model.neck.use_dcn is ('dcn' in name)
    # 191 million parameters need not be drawn to be counted.
    with torch.device('meta' if 'hourglass' in name else 'cpu'):
        parameters = num_parameters(MODELS.build(cfg.model))
    assert parameters / 1e6 == pytest.approx(table()[name], abs=0.051)


def test_every_config_is_in_the_table():
    assert sorted(table()) == LEAVES


# The data sets differ in the number of classes alone, and those of one head are three layers.
@pytest.mark.parametrize('name', [name for name in LEAVES if 'hourglass' in name
                                  or name.endswith('_voc')] + ['centernet_r18_coco'])
def test_model_trains_and_predicts(name):
    """On an image with an object and one without, at 128 x 128; an Hourglass made narrow."""
    from mmdet.structures import DetDataSample
    cfg = load(name)
    num_classes = cfg.num_classes
    if 'hourglass' in name:
        cfg.model.backbone.update(stage_channels=(8, 8, 8, 8, 8, 8), feat_channel=8)
        cfg.model.bbox_head.update(in_channels=8, feat_channels=8)
    model = MODELS.build(cfg.model)
    assert type(model.bbox_head) is CenterNetHead
    if 'hourglass' in name:
        assert type(model.backbone) is HourglassNet
        stacks = 2 if '104' in name else 1
        assert len(model.train().extract_feat(torch.zeros(2, 3, 128, 128))) == stacks
    model.init_weights()
    model.data_preprocessor.pad_size_divisor = 128
    samples = []
    for boxes in ([[10.0, 20.0, 90.0, 70.0]], []):
        samples.append(DetDataSample(metainfo=dict(
            img_shape=(100, 120), ori_shape=(50, 60), scale_factor=(2.0, 2.0))))
        samples[-1].gt_instances = InstanceData(
            bboxes=torch.tensor(boxes).reshape(-1, 4),
            labels=torch.full((len(boxes),), num_classes - 1))
    images = [torch.randint(0, 256, (3, 100, 120), dtype=torch.uint8) for _ in samples]

    batch = model.data_preprocessor(dict(inputs=images, data_samples=samples), training=True)
    assert batch['inputs'].shape == (2, 3, 128, 128)
    losses = model.train()(**batch, mode='loss')
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    # DistributedDataParallel needs every parameter to be used.
    unused = [name for name, value in model.named_parameters()
              if value.requires_grad and value.grad is None]
    assert unused == []

    model.eval()
    with torch.no_grad():
        heatmaps, whs, offsets = model(batch['inputs'], mode='tensor')
        predictions = model(**batch, mode='predict')
    assert [maps[0].shape for maps in (heatmaps, whs, offsets)] == [
        (2, num_classes, 32, 32), (2, 2, 32, 32), (2, 2, 32, 32)], 'stride 4'
    assert predictions[0].pred_instances.bboxes.shape == (100, 4)


@pytest.mark.parametrize('model', BACKBONES)
def test_backbone_has_the_published_number_of_parameters(model):
    cfg = Config.fromfile(CONFIGS / '_base_/models' / f'{model}.py')
    backbone = MODELS.build({**cfg.model.backbone, 'init_cfg': None})
    assert num_parameters(backbone) == BACKBONES[model]


def test_mobilenet_is_three_quarters_smaller_than_its_teacher():
    """As the comment in its config says; the source of the method has 74.7 %."""
    sizes = [num_parameters(MODELS.build(load(f'centernet_{name}_voc').model))
             for name in ('mobilenetv2', 'r50')]
    assert 1 - sizes[0] / sizes[1] == pytest.approx(0.766, abs=5e-4)
