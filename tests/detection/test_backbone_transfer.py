"""A classifier trained by mmkd initialises a CenterNet by one line of its config."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import nn

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


def _config(checkpoint, state, depth=18):
    """Of a CenterNet that starts from a file with these contents."""
    torch.save(state, checkpoint)
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
    state = classifier.state_dict()
    if depth != 18:  # as load_weights takes it, too
        state = dict(meta=dict(epoch=1), state_dict=state)
    cfg = _config(tmp_path / 'member.pth', state, depth)
    fetch_initial_weights(cfg)
    fetch_initial_weights(cfg)  # a dumped config is read again
    cfg.model.backbone.out_indices = (0, 1, 2, 3)
    detector = MODELS.build(cfg.model)
    detector.init_weights()
    backbone = detector.backbone
    backbone.eval()  # which returns nothing

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


def test_a_stem_for_small_images_alone_does_not_fit(tmp_path):
    classifier = _classifier('resnet50_cifar')
    cfg = _config(tmp_path / 'cifar.pth', classifier.state_dict(), 50)
    fetch_initial_weights(cfg)
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
    cfg = _config(tmp_path / 'other.pth', _classifier(network).state_dict())
    with pytest.raises(UserError, match=fault) as caught:
        fetch_initial_weights(cfg)
    assert 'imagenet_resnet18, 34 and 50 fit' in str(caught.value)
    assert '\n' not in str(caught.value)
