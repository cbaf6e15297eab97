"""The auxiliary classifiers of BYOT: shapes, parameters, and what they may be built on."""

import pytest
import torch

import mmkd  # noqa: F401
from mmkd.classification import AuxiliaryClassifiers
from mmkd.distillation.taps import TapRecorder, flat, forward_for_taps
from mmkd.errors import UserError
from mmkd.registry import MODELS

TAPS = ['backbone.stage?', 'backbone.embedding', 'head.fc']


def _tapped(network, side=32):
    torch.manual_seed(0)
    model = MODELS.build(dict(type='Classifier', backbone=dict(type=network), num_classes=7))
    recorder = TapRecorder(model, TAPS)
    values = recorder.dry_run(lambda: forward_for_taps(model.eval(), torch.randn(2, 3, side, side)))
    return list(flat(values).values())


def _built(values):
    return AuxiliaryClassifiers([v.shape[1] for v in values], [tuple(v.shape[2:]) for v in values])


@pytest.mark.parametrize(('network', 'side', 'stages'), [
    ('resnet8', 32, 3), ('resnet8', 64, 3), ('wrn_16_1', 32, 3), ('vgg8', 32, 4),
    ('mobilenetv2_half', 32, 4), ('shufflenetv1', 32, 3), ('imagenet_resnet18', 64, 4)])
def test_every_shallow_stage_gets_a_classifier(network, side, stages):
    values = _tapped(network, side)
    assert len(values) == stages + 2
    auxiliary = _built(values)
    outputs = auxiliary(values)
    assert len(outputs) == stages - 1
    for feature, logits in outputs:
        assert feature.shape == values[-2].shape and logits.shape == (2, 7)
        assert (feature >= 0).all()
    maps = [b(v) for b, v in zip(auxiliary.bottlenecks, values, strict=False)]
    assert {m.shape[2:] for m in maps} == {values[stages - 1].shape[2:]}, "the deepest map's size"


def test_parameters_by_hand():
    """Stage 1 of resnet8 is (16, 32, 32), stage 2 (32, 16, 16), stage 3 (64, 8, 8)."""
    def bottleneck(channels, stride):
        convolutions = channels * 16 + 16 * 16 * stride ** 2 + 16 * 64
        return convolutions + 2 * (16 + 16 + 64) + 64 * 7 + 7

    parameters = sum(p.numel() for p in _built(_tapped('resnet8')).parameters())
    assert parameters == bottleneck(16, 4) + bottleneck(32, 2)


def test_gradient_reaches_the_shallow_stages_and_every_parameter():
    values = [v.requires_grad_() for v in _tapped('resnet8')]
    auxiliary = _built(values)
    sum(logits.square().sum() for _, logits in auxiliary(values)).backward()
    assert [v.grad is not None for v in values] == [True, True, False, False, False]
    assert all(p.grad is not None for p in auxiliary.parameters())


@pytest.mark.parametrize('taps', [slice(0, 3), slice(2, 5), slice(3, 5), slice(0, 4)])
def test_taps_that_are_no_classifier(taps):
    with pytest.raises(UserError, match=r"AuxiliaryClassifiers needs.*'backbone\.stage\?'"):
        _built(_tapped('resnet8')[taps])
