"""Published checkpoints under mmkd's names: the same logits as the network they come from."""

from pathlib import Path

import foreign_networks as foreign
import pytest
import torch
from torch import nn

import mmkd  # noqa: F401  (before mmdet)
from mmkd.checkpoints import load_weights
from mmkd.classification.weights import convert_state_dict
from mmkd.errors import UserError
from mmkd.registry import MODELS

ROOT = Path(__file__).parents[2]
# Networks, and sides of images at which they take other ways.
PUBLISHED = [
    *((name, 32) for name in (
        'resnet20', 'resnet20_option_a', 'resnet8x4', 'wrn_16_1', 'wrn_16_2', 'vgg8', 'vgg13',
        'mobilenetv2_half', 'shufflenetv1', 'shufflenetv2_0_5x', 'shufflenetv2_1x')),
    ('resnet50_cifar', 16), ('vgg8', 64), ('imagenet_resnet18', 64), ('imagenet_resnet50', 64),
    ('imagenet_shufflenetv2', 64), ('imagenet_mobilenetv1', 64)]


def _network(name, num_classes=10, **options):
    return MODELS.build(dict(type='Classifier', backbone=dict(type=name, **options),
                             num_classes=num_classes))


def _images(side):
    return torch.randn(2, 3, side, side, dtype=torch.float64,
                       generator=torch.Generator().manual_seed(1))


def _check_logits(network, side, run, *arguments):
    checkpoint, images = foreign.Checkpoint(), _images(side)
    expected = run(checkpoint, images, *arguments)
    network.double().eval()
    network.load_state_dict(convert_state_dict(checkpoint.state, network))
    with torch.no_grad():
        torch.testing.assert_close(network(images), expected, rtol=1e-9, atol=1e-9)
    assert expected.std() > 1e-3


@pytest.mark.parametrize(('name', 'side'), PUBLISHED)
def test_the_logits_are_those_of_the_published_network(name, side):
    _check_logits(_network(name), side, *foreign.NETWORKS[name])


def test_the_logits_of_timms_mobilenet():
    _check_logits(_network('imagenet_mobilenetv1', relu6=True), 64, foreign.mobilenetv1_timm)


def test_every_stage_of_a_wide_resnet_ends_with_the_batch_norm_that_begins_the_next():
    checkpoint, images = foreign.Checkpoint(), _images(32)
    foreign.wrn(checkpoint, images, 2, 1)
    network = _network('wrn_16_1').double().eval()
    network.load_state_dict(convert_state_dict(checkpoint.state, network))
    seen = {}
    for number in (1, 2, 3):
        stage = getattr(network.backbone, f'stage{number}')
        stage.preact.register_forward_hook(
            lambda _, args, output, number=number: seen.update({number: output}))
    with torch.no_grad():
        network(images)
    for number, theirs in enumerate(('block2.layer.0.bn1', 'block3.layer.0.bn1', 'bn1'), 1):
        torch.testing.assert_close(seen[number], checkpoint.outputs[theirs])


@pytest.fixture(scope='module')
def resnet8():
    checkpoint = foreign.Checkpoint()
    foreign.resnet_cifar(checkpoint, _images(8), 1, (16, 16, 32, 64))
    return checkpoint.state


@pytest.mark.parametrize('wrap', [
    lambda state: dict(model=state, epoch=240, best_acc=0.7),
    lambda state: dict(state_dict=state),
    lambda state: {f'module.{name}': value for name, value in state.items()},
], ids=['model', 'state_dict', 'DataParallel'])
def test_wrapped_weights_are_the_same_weights(resnet8, wrap):
    network = _network('resnet8')
    plain, wrapped = (convert_state_dict(state, network) for state in (resnet8, wrap(resnet8)))
    assert plain.keys() == wrapped.keys() == network.state_dict().keys()
    assert all(plain[name] is wrapped[name] for name in plain)
    assert plain['backbone.stage2.blocks.0.shortcut.0.weight'] is resnet8[
        'layer2.0.downsample.0.weight']
    assert len({id(value) for value in plain.values()}) == len(resnet8)


def test_a_file_of_option_a_loads_into_no_other_network(tmp_path):
    checkpoint = foreign.Checkpoint()
    expected = foreign.resnet_option_a(checkpoint, _images(32), 3)
    # As akamaster's repository saves it: under DataParallel, by a PyTorch without counters.
    state = {f'module.{name}': value for name, value in checkpoint.state.items()
             if not name.endswith('num_batches_tracked')}
    path = tmp_path / 'resnet20.th'
    torch.save(dict(state_dict=state, best_prec1=91.73), path)
    classifier = _network('resnet20_option_a').double().eval()
    load_weights(classifier, path)
    with torch.no_grad():
        logits = classifier(_images(32))
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)
    for name, fault in (('resnet20', r'missing \(backbone.stage2.blocks.0.shortcut'),
                        ('resnet32_option_a', 'missing')):
        with pytest.raises(UserError, match=fault):
            load_weights(_network(name), path)


@pytest.mark.parametrize('depth', [20, 56])
def test_the_real_files_of_option_a(depth):
    """Where data/weights has those of akamaster's repository, each classifies its ten classes."""
    files = sorted((ROOT / 'data/weights').glob(f'*resnet{depth}-*.th'))
    if not files:
        pytest.skip(f'no data/weights/*resnet{depth}-*.th')
    classifier = _network(f'resnet{depth}_option_a')
    load_weights(classifier, files[0])
    means = classifier.backbone.stem[1].running_mean
    assert means.isfinite().all() and means.abs().sum() > 0  # a new network's are 0


def test_old_checkpoints_lack_the_counters_of_the_batch_norms(resnet8):
    old = {name: value for name, value in resnet8.items()
           if not name.endswith('num_batches_tracked')}
    network = _network('resnet8')
    network.load_state_dict(convert_state_dict(old, network))
    assert network.backbone.stem[1].num_batches_tracked == 0


def _without(state, *names):
    return {name: value for name, value in state.items() if name not in names}


@pytest.mark.parametrize(('backbone', 'classes', 'change', 'message'), [
    ('resnet8', 10, lambda s: _without(s, 'fc.bias'), r'1 missing \(head\.fc\.bias\)'),
    ('resnet8', 10, lambda s: dict(s, extra=torch.zeros(1)), r'1 unknown \(extra\)'),
    ('resnet8', 10, lambda s: {**s, 'linear.bias': s['fc.bias']}, r'1 unknown \(linear\.bias\)'),
    ('resnet8', 100, dict, r'fc\.weight \(10, 64\) for head\.fc\.weight \(100, 64\)'),
    ('resnet14', 10, dict, r'30 missing'),
    ('vgg8', 10, dict, r'unknown \(conv1\.weight, bn1\.weight, bn1\.bias, \.\.\.\)'),
    ('resnet8', 10, lambda s: dict(model=[s]), 'holds a list where its weights'),
], ids=['missing', 'unknown', 'twice', 'classes', 'depth', 'family', 'no weights'])
def test_what_does_not_fit_is_named(resnet8, backbone, classes, change, message):
    with pytest.raises(UserError, match=message):
        convert_state_dict(change(resnet8), _network(backbone, classes))


def test_timms_mobilenet_needs_its_relu6():
    checkpoint = foreign.Checkpoint()
    foreign.mobilenetv1_timm(checkpoint, _images(32))
    with pytest.raises(UserError, match='relu6=True'):
        convert_state_dict(checkpoint.state, _network('imagenet_mobilenetv1'))


def test_a_backbone_of_another_library_has_no_mapping():
    network = nn.Module()
    network.backbone = nn.Conv2d(3, 3, 1)
    with pytest.raises(UserError, match='no key mapping for the backbone Conv2d'):
        convert_state_dict({}, network)
