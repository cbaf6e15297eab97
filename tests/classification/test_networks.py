"""Sizes, shapes and taps of the networks; their arithmetic is checked in test_weights.py."""

from itertools import pairwise

import pytest
import torch

import mmkd  # noqa: F401  (before mmdet)
from mmkd.errors import UserError
from mmkd.registry import MODELS


def _conv(kernel, inputs, outputs, groups=1):
    """Parameters of a convolution without bias and its batch norm."""
    return kernel * kernel * inputs // groups * outputs + 2 * outputs


def _resnet(stem, widths, counts, bottleneck=False, first=3, projects=True):
    total, inputs = _conv(first, 3, stem), stem
    for width, count in zip(widths, counts, strict=True):
        outputs = 4 * width if bottleneck else width
        strided = width != widths[0]
        for i in range(count):
            if bottleneck:
                total += _conv(1, inputs, width) + _conv(3, width, width) + _conv(1, width, outputs)
            else:
                total += _conv(3, inputs, width) + _conv(3, width, width)
            if projects and (inputs != outputs or (strided and i == 0)):
                total += _conv(1, inputs, outputs)
            inputs = outputs
    return total, inputs


def _resnet_cifar(depth, width=1, projects=True):
    return _resnet(32 if width == 4 else 16, [16 * width, 32 * width, 64 * width],
                   [(depth - 2) // 6] * 3, projects=projects)


def _wrn(depth, width):
    total, inputs = 9 * 3 * 16, 16
    for outputs in (16 * width, 32 * width, 64 * width):
        for _ in range((depth - 4) // 6):
            total += 2 * inputs + 9 * inputs * outputs + 2 * outputs + 9 * outputs * outputs
            total += inputs * outputs if inputs != outputs else 0
            inputs = outputs
    return total + 2 * inputs, inputs


def _vgg(*channels):
    inputs = (3, *channels[:-1])
    return sum(_conv(3, a, b) + b for a, b in zip(inputs, channels, strict=True)), 512


def _mobilenetv2_half():
    # Channels of the 17 blocks, at half width.
    total, inputs = _conv(3, 3, 16), 16
    for i, outputs in enumerate([8] + [12] * 2 + [16] * 3 + [32] * 4 + [48] * 3 + [80] * 3 + [160]):
        wide = inputs * (6 if i else 1)
        total += _conv(1, inputs, wide) + _conv(3, wide, wide, wide) + _conv(1, wide, outputs)
        inputs = outputs
    return total + _conv(1, inputs, 1280), 1280


def _mobilenetv1():
    channels = [32, 64, 128, 128, 256, 256] + [512] * 6 + [1024] * 2
    total = _conv(3, 3, 32)
    for a, b in pairwise(channels):
        total += _conv(3, a, a, a) + _conv(1, a, b)
    return total, 1024


def _shufflenetv1():
    total, inputs = _conv(1, 3, 24), 24
    for outputs, count in ((240, 4), (480, 8), (960, 4)):
        for i in range(count):
            new = outputs if i else outputs - inputs
            middle = new // 4
            total += (_conv(1, inputs, middle, 1 if inputs == 24 else 3)
                      + _conv(3, middle, middle, middle) + _conv(1, middle, new, 3))
            inputs = outputs
    return total, 960


def _shufflenetv2(widths, first):
    total, inputs = _conv(first, 3, 24), 24
    for outputs, count in zip(widths, (4, 8, 4), strict=True):
        half = outputs // 2
        total += _conv(3, inputs, inputs, inputs) + _conv(1, inputs, half)
        total += _conv(1, inputs, half) + _conv(3, half, half, half) + _conv(1, half, half)
        total += (count - 1) * (2 * _conv(1, half, half) + _conv(3, half, half, half))
        inputs = outputs
    return total + _conv(1, inputs, 1024), 1024


IMAGENET = [64, 128, 256, 512]
# Parameters without the classifier, and channels of the embedding, from the layers' table; and
# the published number with a classifier of 100 classes (ImageNet: 1000), where there is one.
SIZES = {
    'resnet8': (_resnet_cifar(8), None),
    'resnet14': (_resnet_cifar(14), None),
    'resnet20': (_resnet_cifar(20), 278_324),
    'resnet32': (_resnet_cifar(32), 472_756),
    'resnet44': (_resnet_cifar(44), None),
    'resnet56': (_resnet_cifar(56), 861_620),
    'resnet110': (_resnet_cifar(110), 1_736_564),
    'resnet20_option_a': (_resnet_cifar(20, projects=False), None),
    'resnet32_option_a': (_resnet_cifar(32, projects=False), None),
    'resnet44_option_a': (_resnet_cifar(44, projects=False), None),
    'resnet56_option_a': (_resnet_cifar(56, projects=False), None),
    'resnet110_option_a': (_resnet_cifar(110, projects=False), None),
    'resnet8x4': (_resnet_cifar(8, 4), 1_233_540),
    'resnet32x4': (_resnet_cifar(32, 4), 7_433_860),
    'resnet50_cifar': (_resnet(64, IMAGENET, [3, 4, 6, 3], bottleneck=True), 23_705_252),
    'wrn_16_1': (_wrn(16, 1), None),
    'wrn_16_2': (_wrn(16, 2), 703_284),
    'wrn_40_1': (_wrn(40, 1), 569_780),
    'wrn_40_2': (_wrn(40, 2), 2_255_156),
    'wrn_28_4': (_wrn(28, 4), None),
    'vgg8': (_vgg(64, 128, 256, 512, 512), 3_965_028),
    'vgg11': (_vgg(64, 128, 256, 256, 512, 512, 512, 512), None),
    'vgg13': (_vgg(64, 64, 128, 128, 256, 256, 512, 512, 512, 512), 9_462_180),
    'vgg16': (_vgg(64, 64, 128, 128, *[256] * 3, *[512] * 6), None),
    'vgg19': (_vgg(64, 64, 128, 128, *[256] * 4, *[512] * 8), None),
    'mobilenetv2_half': (_mobilenetv2_half(), 812_836),
    'shufflenetv1': (_shufflenetv1(), 949_258),
    'shufflenetv2_0_5x': (_shufflenetv2((48, 96, 192), 1), None),
    'shufflenetv2_1x': (_shufflenetv2((116, 232, 464), 1), 1_355_528),
    'imagenet_resnet18': (_resnet(64, IMAGENET, [2, 2, 2, 2], first=7), 11_689_512),
    'imagenet_resnet34': (_resnet(64, IMAGENET, [3, 4, 6, 3], first=7), 21_797_672),
    'imagenet_resnet50': (_resnet(64, IMAGENET, [3, 4, 6, 3], True, first=7), 25_557_032),
    'imagenet_mobilenetv1': (_mobilenetv1(), 4_231_976),
    'imagenet_shufflenetv2': (_shufflenetv2((116, 232, 464), 3), 2_278_604),
}

# Channels and cells a side of the stem and the stages, for 32 pixels (ImageNet: 64).
MAPS = {
    'resnet20': [(16, 32), (16, 32), (32, 16), (64, 8)],
    'resnet20_option_a': [(16, 32), (16, 32), (32, 16), (64, 8)],
    'resnet8x4': [(32, 32), (64, 32), (128, 16), (256, 8)],
    'resnet50_cifar': [(64, 32), (256, 32), (512, 16), (1024, 8), (2048, 4)],
    'wrn_16_1': [(16, 32), (16, 32), (32, 16), (64, 8)],
    'wrn_40_2': [(16, 32), (32, 32), (64, 16), (128, 8)],
    'vgg8': [(64, 32), (128, 16), (256, 8), (512, 4), (512, 4)],
    'vgg13': [(64, 32), (128, 16), (256, 8), (512, 4), (512, 4)],
    'mobilenetv2_half': [(16, 16), (12, 16), (16, 8), (48, 4), (160, 2)],
    'shufflenetv1': [(24, 32), (240, 16), (480, 8), (960, 4)],
    'shufflenetv2_0_5x': [(24, 32), (48, 16), (96, 8), (192, 4)],
    'shufflenetv2_1x': [(24, 32), (116, 16), (232, 8), (464, 4)],
    'imagenet_resnet18': [(64, 16), (64, 16), (128, 8), (256, 4), (512, 2)],
    'imagenet_resnet50': [(64, 16), (256, 16), (512, 8), (1024, 4), (2048, 2)],
    'imagenet_mobilenetv1': [(64, 32), (128, 16), (256, 8), (512, 4), (1024, 2)],
    'imagenet_shufflenetv2': [(24, 16), (116, 8), (232, 4), (464, 2)],
}


def _build(name, **options):
    return MODELS.build(dict(type=name, **options))


def _record(network, images):
    """Run, and return every submodule's output by name with the version it then had."""
    seen = {}
    handles = [module.register_forward_hook(
        lambda _, args, output, name=name: seen.update({name: (output, output._version)}))
        for name, module in network.named_modules() if name]
    result = network(images)
    for handle in handles:
        handle.remove()
    return result, seen


@pytest.mark.parametrize('name', SIZES)
def test_the_number_of_parameters_is_the_published_one(name):
    (counted, channels), published = SIZES[name]
    with torch.device('meta'):
        network = _build(name)
    assert network.out_channels == channels
    assert sum(parameter.numel() for parameter in network.parameters()) == counted
    classes = 1000 if name.startswith('imagenet') else 100
    assert published in (None, counted + (channels + 1) * classes)


# The table of akamaster's pytorch_resnet_cifar10, in millions, with ten classes.
@pytest.mark.parametrize(('depth', 'millions'), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85),
                                                 (110, 1.7)])
def test_a_shortcut_of_option_a_has_no_parameters(depth, millions):
    with torch.device('meta'):
        network = _build(f'resnet{depth}_option_a')
    assert not [name for name, _ in network.named_parameters() if 'shortcut' in name]
    counted = sum(parameter.numel() for parameter in network.parameters()) + 65 * 10
    assert round(counted / 1e6, 1 if depth == 110 else 2) == millions


@pytest.mark.parametrize('name', MAPS)
def test_the_taps_have_the_shapes_of_the_literature(name):
    side = 64 if name.startswith('imagenet') else 32
    with torch.device('meta'):
        network = _build(name)
        embedding, seen = _record(network, torch.empty(2, 3, side, side))
    assert network.num_stages == len(MAPS[name]) - 1
    taps = ['stem', *(f'stage{number}' for number in range(1, network.num_stages + 1))]
    for tap, (channels, cells) in zip(taps, MAPS[name], strict=True):
        assert seen[tap][0].shape == (2, channels, cells, cells)
        if tap != 'stem':
            assert seen[f'{tap}.preact'][0].shape == (2, channels, cells, cells)
    assert embedding.shape == seen['embedding'][0].shape == (2, network.out_channels)


SMALLEST = ['resnet8', 'resnet20_option_a', 'resnet8x4', 'resnet50_cifar', 'wrn_16_1', 'wrn_16_2',
            'vgg8', 'mobilenetv2_half', 'shufflenetv1', 'shufflenetv2_0_5x', 'imagenet_resnet18',
            'imagenet_resnet50', 'imagenet_mobilenetv1', 'imagenet_shufflenetv2']


@pytest.mark.parametrize('name', SMALLEST)
def test_taps_hold_and_gradients_reach_every_parameter(name):
    torch.manual_seed(0)
    network = _build(name)
    embedding, seen = _record(network, torch.randn(2, 3, 32, 32))
    changed = [tap for tap, (value, version) in seen.items() if value._version != version]
    assert not changed
    for number in range(1, network.num_stages + 1):
        stage, preact = (seen[tap][0] for tap in (f'stage{number}', f'stage{number}.preact'))
        if name == 'mobilenetv2_half':
            assert torch.equal(preact, stage)
        else:
            assert preact.min() < 0 <= stage.min()
            assert torch.equal(preact.relu(), stage)
    embedding.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_a_mobilenet_clips_where_it_is_told_to():
    network = _build('imagenet_mobilenetv1', relu6=True)
    with torch.no_grad():
        _, seen = _record(network, 100 * torch.randn(8, 3, 64, 64))
    assert torch.equal(seen['stage1.preact'][0].clamp(0, 6), seen['stage1'][0])
    assert not [name for name, module in network.named_modules() if type(module).__name__ == 'ReLU']


@pytest.mark.parametrize('name', ['resnet8', 'wrn_16_1', 'vgg8', 'mobilenetv2_half',
                                  'shufflenetv1', 'shufflenetv2_0_5x', 'imagenet_mobilenetv1'])
def test_a_seed_decides_the_weights(name):
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        network = _build(name)
        states.append({key: value.clone() for key, value in network.state_dict().items()})
    network.init_weights()  # as mmengine's runner does
    first, second = states
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert all(torch.equal(first[key], value) for key, value in network.state_dict().items())


@pytest.mark.parametrize(('name', 'kernel', 'fan'), [
    ('resnet8x4', 'stage3.blocks.0.conv2.weight', 9 * 256),
    ('wrn_16_2', 'stage3.blocks.0.conv1.weight', 9 * 128),
    ('vgg8', 'stage3.blocks.0.0.weight', 9 * 512),
    ('mobilenetv2_half', 'final.0.weight', 1280),
])
def test_kernels_start_with_the_variance_of_he(name, kernel, fan):
    torch.manual_seed(0)
    assert _build(name).get_parameter(kernel).std().item() == pytest.approx((2 / fan) ** 0.5,
                                                                            rel=0.02)


@pytest.mark.parametrize(('config', 'message'), [
    (dict(type='ResNetCIFAR', depth=21), 'no depth 21: give 6n'),
    (dict(type='ResNetCIFAR', depth=2), 'no depth 2'),
    (dict(type='WideResNet', depth=20), 'no depth 20: give 6n'),
    (dict(type='VGGCIFAR', depth=12), 'no depth 12: give one of 8, 11'),
    (dict(type='ResNetImageNet', depth=101), 'no depth 101: give one of 18'),
    (dict(type='ShuffleNetV2CIFAR', width='2x'), "no width '2x': give one of '0.5x', '1x'"),
])
def test_a_network_that_does_not_exist_is_refused(config, message):
    with pytest.raises(UserError, match=message):
        MODELS.build(config)


def test_no_name_hides_one_of_mmdet():
    MODELS.import_from_location()
    for name in [*SIZES, 'ResNetCIFAR', 'ResNetImageNet', 'WideResNet', 'VGGCIFAR',
                 'MobileNetV1ImageNet', 'MobileNetV2CIFAR', 'ShuffleNetV1CIFAR',
                 'ShuffleNetV2CIFAR', 'ShuffleNetV2ImageNet']:
        assert name in MODELS.module_dict
        assert MODELS.parent.get(name) is None
