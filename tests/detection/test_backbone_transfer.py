"""A classifier trained by mmkd initialises a CenterNet by one line of its config."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

import mmkd  # noqa: F401  (before mmdet)
from mmkd.classification import Classifier
from mmkd.detection.initial_weights import fetch_initial_weights
from mmkd.distillation import TapRecorder
from mmkd.errors import UserError
from mmkd.registry import MODELS

ROOT = Path(__file__).parents[2]
CONFIGS = {18: 'centernet_mt_r18', 34: 'centernet/centernet_r34_voc',
           50: 'centernet/centernet_r50_voc'}


def _classifier(network, seed=0):
    """Random weights, also of the batch norms."""
    torch.manual_seed(seed)
    model = Classifier(dict(type=network), num_classes=3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.weight, module.running_var):
                nn.init.uniform_(value, 0.5, 1.5)
            for value in (module.bias, module.running_mean):
                nn.init.uniform_(value, -0.5, 0.5)
    return model.eval()


def _centernet(checkpoint, depth=18):
    cfg = Config.fromfile(ROOT / f'configs/{CONFIGS[depth]}.py')
    cfg.merge_from_dict({'model.backbone.init_cfg.checkpoint': str(checkpoint)})
    return cfg


def _layers(network):
    return [module for module in network.modules()
            if isinstance(module, (nn.Conv2d, nn.BatchNorm2d))]


@pytest.mark.parametrize('depth', [18, 34, 50])
def test_the_detectors_backbone_is_the_classifiers(depth, tmp_path):
    """Every layer is equal, and so are the outputs of the four stages."""
    classifier = _classifier(f'imagenet_resnet{depth}')
    file = tmp_path / 'member.pth'
    torch.save(dict(meta=dict(epoch=1), state_dict=classifier.state_dict()), file)
    cfg = _centernet(file, depth)
    fetch_initial_weights(cfg)
    fetch_initial_weights(cfg)  # a dumped config is read again
    with DefaultScope.overwrite_default_scope('mmkd'):
        backbone = MODELS.build(dict(cfg.model.backbone, out_indices=(0, 1, 2, 3)))
    backbone.init_weights()
    backbone.eval()

    ours, theirs = (sorted(tuple(round(float(p.double().sum()), 9) for p in layer.state_dict()
                                 .values()) for layer in _layers(network))
                    for network in (classifier.backbone, backbone))
    assert len(ours) == len(theirs) > 2 * depth and ours == theirs
    taps = [f'backbone.stage{number}' for number in (1, 2, 3, 4)]
    for dtype in (torch.float32, torch.float64):
        image = torch.randn(1, 3, 64, 64, dtype=dtype)
        stages = TapRecorder(classifier.to(dtype), taps).dry_run(lambda x=image: classifier(x))
        with torch.no_grad():
            for tap, output in zip(taps, backbone.to(dtype)(image), strict=True):
                torch.testing.assert_close(stages[tap][tap], output, msg=tap)


def test_a_whole_detector_starts_from_it(tmp_path):
    classifier = _classifier('imagenet_resnet18')
    torch.save(classifier.state_dict(), tmp_path / 'plain.pth')  # as load_weights takes it, too
    cfg = _centernet(tmp_path / 'plain.pth')
    fetch_initial_weights(cfg)
    with DefaultScope.overwrite_default_scope('mmkd'):
        model = MODELS.build(cfg.model)
    model.init_weights()
    for ours, theirs in (('stem.0', 'conv1'), ('stem.1', 'bn1'),
                         ('stage2.blocks.0.shortcut.1', 'layer2.0.downsample.1'),
                         ('stage4.blocks.1.conv2', 'layer4.1.conv2')):
        state = model.backbone.get_submodule(theirs).state_dict()
        for name, value in classifier.backbone.get_submodule(ours).state_dict().items():
            assert torch.equal(state[name], value), (theirs, name)


def test_a_stem_for_small_images_alone_does_not_fit(tmp_path):
    classifier = _classifier('resnet50_cifar')
    torch.save(classifier.state_dict(), tmp_path / 'cifar.pth')
    cfg = _centernet(tmp_path / 'cifar.pth', 50)
    fetch_initial_weights(cfg)
    with DefaultScope.overwrite_default_scope('mmkd'):
        backbone = MODELS.build(cfg.model.backbone)
    backbone.init_weights()
    assert torch.equal(backbone.layer4[2].conv3.weight,
                       classifier.backbone.stage4.blocks[2].conv3.weight)


@pytest.mark.parametrize(('network', 'fault'), [
    ('resnet20', r'fits \d+ of the 100 entries of model.backbone \(ResNet\)'),
    ('wrn_16_1', r'fits 0 of the 100'),
    ('imagenet_resnet34', r'fits 100 of the 100 .* and has 96 more'),
    ('imagenet_resnet50', r'fits \d+ of the 100'),
])
def test_other_networks_are_refused_in_one_line(network, fault, tmp_path):
    torch.save(_classifier(network).state_dict(), tmp_path / 'other.pth')
    cfg = _centernet(tmp_path / 'other.pth')
    with pytest.raises(UserError, match=fault) as caught:
        fetch_initial_weights(cfg)
    assert 'imagenet_resnet18, 34 and 50 fit' in str(caught.value)
    assert '\n' not in str(caught.value)
