"""Counts against sums by hand and published numbers."""

import pytest
from torch import nn

from mmkd.deploy.compare.complexity import count_flops, count_parameters, weight_bytes
from mmkd.registry import MODELS


def test_every_kind_of_layer_by_hand():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),             # (8, 16, 16)
        nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),             # depthwise
        nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1),    # (4, 32, 32)
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)).eval()
    of_a_cell = (8 * 3 * 9      # each output: 3 x 3 x 3 inputs
                 + 8 * 9        # each output: 3 x 3 inputs
                 + 8 * 4 * 16)  # each input: 4 x 4 x 4 outputs
    parameters = (8 * 3 * 9 + 8) + 2 * 8 + (8 * 9 + 8) + (8 * 4 * 16 + 4) + (4 * 10 + 10)
    assert count_flops(network, (32, 32)) == 2 * (16 * 16 * of_a_cell + 4 * 10)
    assert count_flops(network, (64, 32)) == 2 * (32 * 16 * of_a_cell + 4 * 10)
    assert count_parameters(network) == parameters
    # Besides, running mean and variance, and a 64-bit counter of batches.
    assert weight_bytes(network) == 4 * (parameters + 2 * 8) + 8
    assert next(network.parameters()).device.type == 'cpu'


@pytest.mark.parametrize(('name', 'parameters', 'gmacs'), [
    # torchvision's table of weights: parameters and "GFLOPS", a multiply-add being one; of
    # MobileNet its paper, table 8.
    ('imagenet_resnet18', 11.69e6, 1.81), ('imagenet_resnet50', 25.56e6, 4.09),
    ('imagenet_shufflenetv2', 2.28e6, 0.145), ('imagenet_mobilenetv1', 4.2e6, 0.569),
])
def test_published_numbers(name, parameters, gmacs):
    model = MODELS.build(dict(type='Classifier', backbone=dict(type=name),
                              num_classes=1000)).eval()
    assert count_parameters(model) == pytest.approx(parameters, rel=1e-2)
    assert count_flops(model, (224, 224)) / 2e9 == pytest.approx(gmacs, rel=1e-2)
