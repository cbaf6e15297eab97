"""--backbone timm:NAME: the neck follows, and what does not fit is said."""

import pytest
from helpers import build, centernet
from mmengine.config import Config, ConfigDict

from mmkd.engine.backbone import use_backbone
from mmkd.errors import UserError
from mmkd.registry import MODELS


def detector(**neck):
    """A detector whose backbone gives 4, 8, 16 and 32 channels."""
    return Config(dict(model=dict(type='RetinaNet', neck=neck, backbone=dict(
        type='ResNet', depth=18, base_channels=4,
        init_cfg=dict(type='Pretrained', checkpoint='x')))))


def channels_of(strides):
    network = MODELS.build(dict(type='TimmBackbone', name='resnet10t'))
    return [network.channels[network.strides.index(stride)] for stride in strides]


@pytest.mark.parametrize('before, strides', [
    ([4, 8, 16, 32], [4, 8, 16, 32]), ([32, 16, 8, 4], [32, 16, 8, 4]), (32, [32])])
def test_the_neck_follows(timm, before, strides):
    cfg = detector(type='FPN', in_channels=before)
    use_backbone(cfg, 'timm:resnet10t')
    assert cfg.model.backbone == dict(type='TimmBackbone', name='resnet10t',
                                      out_indices=[1, 2, 3, 4])
    after = channels_of(strides)
    assert cfg.model.neck.in_channels == (after if isinstance(before, list) else after[0])


def test_a_centernet_is_built(timm):
    cfg = Config(dict(model=ConfigDict(centernet())))
    use_backbone(cfg, 'timm:resnet10t')
    assert build(cfg.model).backbone.channels == channels_of([4, 8, 16, 32])


@pytest.mark.parametrize('text, cfg, told', [
    ('resnet10t', detector(type='FPN', in_channels=[4, 8, 16, 32]), 'give a network of timm, as'),
    ('timm:vit_tiny_patch16_224', detector(type='FPN', in_channels=[4, 8, 16, 32]),
     'has maps of stride 16, and .* needs 4, 8, 16, 32: .* has 4, 8, 32, too'),
    ('timm:resnet10t', detector(type='FPN', in_channels=[4, 8]), r'takes in_channels=\[4, 8\],'),
    ('timm:resnet10t', Config(dict(model=centernet(stacks=1))), 'has no neck whose in_channels')])
def test_what_does_not_fit_is_one_sentence(timm, text, cfg, told):
    with pytest.raises(UserError, match=told):
        use_backbone(cfg, text)
