"""Rounding by hand, and what gradients pass."""

import numpy as np
import pytest
import torch
from torch import nn

from mmkd.int8.rounding import (
    rounded_bias,
    rounded_feature,
    rounded_weight,
    scale_and_zero,
    with_norm,
)


def test_a_feature_and_its_gradient_by_hand():
    """From -1 to 4.1 the step is 0.02 and 0 is step 50: 0.03 is between two, 5 beyond all."""
    low, high = torch.tensor(-1.0), torch.tensor(4.1)
    scale, zero = scale_and_zero(low, high)
    assert (float(scale), int(zero)) == (pytest.approx(0.02), 50)
    x = torch.tensor([-3.0, -1.0, 0.0, 0.009, 0.011, 1.234, 5.0], requires_grad=True)
    rounded = rounded_feature(x, low, high)
    torch.testing.assert_close(rounded, torch.tensor([-1.0, -1.0, 0, 0, 0.02, 1.24, 4.1]))
    rounded.sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 1, 1, 0]


def test_a_feature_that_is_always_zero():
    nothing = torch.zeros(())
    assert rounded_feature(torch.zeros(2), nothing, nothing).tolist() == [0, 0]


def test_a_weight_has_a_scale_for_each_channel():
    layer = nn.Linear(2, 2)
    weight = torch.tensor([[1.27, 0.014], [-12.7, 0.14]], requires_grad=True)
    rounded = rounded_weight(weight, layer)
    torch.testing.assert_close(rounded, torch.tensor([[1.27, 0.01], [-12.7, 0.1]]))
    rounded.sum().backward()
    assert weight.grad.tolist() == [[1, 1], [1, 1]]


def test_weights_halfway_are_rounded_as_by_numpys_division():
    """onnxruntime divides by the scale; a product with 1 / scale decides some otherwise."""
    largest = torch.rand(2000, 1, generator=torch.Generator().manual_seed(0)) + 1
    scale = largest.numpy() / np.float32(127)
    halfway = torch.from_numpy(scale * np.float32(63.5))
    rounded = rounded_weight(torch.cat([largest, halfway], 1), nn.Linear(2, 2000))
    expected = np.rint(halfway.numpy() / scale) * scale
    np.testing.assert_allclose(rounded[:, 1:].numpy(), expected, rtol=1e-6)


def test_a_bias_has_the_steps_of_the_sums():
    """Scales of the channels 0.01 and 0.1, steps of the input of 0.5: units 0.005 and 0.05."""
    weight = torch.tensor([[1.27, 0.0], [-12.7, 0.0]])
    bias = torch.tensor([0.012, 0.08], requires_grad=True)
    rounded = rounded_bias(bias, weight, nn.Linear(2, 2), torch.tensor(0.5))
    torch.testing.assert_close(rounded, torch.tensor([0.01, 0.1]))
    rounded.sum().backward()
    assert bias.grad.tolist() == [1, 1]
    transposed = nn.ConvTranspose2d(1, 1, 4, 2, 1)
    assert rounded_bias(bias, transposed.weight, transposed, torch.tensor(0.5)) is bias
    assert rounded_bias(None, weight, nn.Linear(2, 2), torch.tensor(0.5)) is None


def test_a_transposed_one_for_each_phase():
    """A 4 x 4 kernel of stride 2: rows 0 and 2 are a phase, 1 and 3 the other, columns alike."""
    layer = nn.ConvTranspose2d(1, 1, 4, 2, 1)
    weight = torch.full((1, 1, 4, 4), 0.014)
    weight[0, 0, 0, 0] = 1.27
    rounded = rounded_weight(weight, layer)[0, 0]
    torch.testing.assert_close(rounded[[0, 2, 2], [2, 0, 2]], torch.full((3,), 0.01))
    torch.testing.assert_close(rounded[1::2], torch.full((2, 4), 0.014))


@pytest.mark.parametrize('layer', [nn.Conv2d(2, 3, 3), nn.Conv2d(2, 3, 3, bias=False),
                                   nn.ConvTranspose2d(2, 3, 4, 2, 1)])
def test_a_norm_becomes_part_of_its_layer(layer):
    norm = nn.BatchNorm2d(3).eval()
    for values in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
        nn.init.uniform_(values, 0.5, 2)
    x = torch.randn(1, 2, 5, 5)
    weight, bias = with_norm(layer, norm)
    function = (nn.functional.conv2d if isinstance(layer, nn.Conv2d)
                else nn.functional.conv_transpose2d)
    found = function(x, weight, bias, layer.stride, layer.padding)
    torch.testing.assert_close(found, norm(layer(x)), rtol=1e-4, atol=1e-5)
