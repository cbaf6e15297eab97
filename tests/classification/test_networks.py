"""Sizes, shapes and taps of the networks; their arithmetic is checked in test_weights.py."""

import foreign_networks as foreign
import pytest
import torch

import mmkd  # noqa: F401  (before mmdet)
from mmkd.errors import UserError
from mmkd.registry import MODELS

# With a classifier of 100 classes (ImageNet: 1000).
PUBLISHED_PARAMETERS = {
    'resnet20': 278_324, 'resnet32': 472_756, 'resnet56': 861_620, 'resnet110': 1_736_564,
    'resnet8x4': 1_233_540, 'resnet32x4': 7_433_860, 'resnet50_cifar': 23_705_252,
    'wrn_16_2': 703_284, 'wrn_40_1': 569_780, 'wrn_40_2': 2_255_156,
    'vgg8': 3_965_028, 'vgg13': 9_462_180, 'mobilenetv2_half': 812_836,
    'shufflenetv1': 949_258, 'shufflenetv2_1x': 1_355_528,
    'imagenet_resnet18': 11_689_512, 'imagenet_resnet34': 21_797_672,
    'imagenet_resnet50': 25_557_032, 'imagenet_mobilenetv1': 4_231_976,
    'imagenet_shufflenetv2': 2_278_604,
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


class Shapes(foreign.Checkpoint):
    """What a network of `foreign_networks` asks for, without numbers."""

    def _get(self, name, shape, scale=1.0, shift=0.0):
        self.state[name] = torch.empty(shape)
        return self.state[name]


@pytest.mark.parametrize('name', foreign.NETWORKS)
def test_the_number_of_parameters_is_the_published_one(name):
    shapes = Shapes()
    with torch.device('meta'):
        network = _build(name)
        run, *arguments = foreign.NETWORKS[name]
        run(shapes, torch.empty(1, 3, 64, 64), *arguments)
    [*_, weight, bias] = shapes.state.values()  # of its classifier
    assert weight.shape == (len(bias), network.out_channels)
    parameters = [value.numel() for key, value in shapes.state.items()
                  if not key.endswith(('mean', 'var', 'tracked'))]
    counted = sum(parameter.numel() for parameter in network.parameters())
    assert counted == sum(parameters[:-2])
    if name in PUBLISHED_PARAMETERS:
        classes = 1000 if name.startswith('imagenet') else 100
        assert counted + (network.out_channels + 1) * classes == PUBLISHED_PARAMETERS[name]


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
    for name in [*foreign.NETWORKS, 'ResNetCIFAR', 'ResNetImageNet', 'WideResNet', 'VGGCIFAR',
                 'MobileNetV1ImageNet', 'MobileNetV2CIFAR', 'ShuffleNetV1CIFAR',
                 'ShuffleNetV2CIFAR', 'ShuffleNetV2ImageNet']:
        assert name in MODELS.module_dict
        assert MODELS.parent.get(name) is None
