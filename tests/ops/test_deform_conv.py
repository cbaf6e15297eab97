"""Deformable convolutions: the layer of mmkd, and the operators below mmcv's."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

import mmkd  # noqa: F401
from mmkd.ops.deform_conv import modulated_deform_conv2d
from mmkd.ops.deform_layer import ModulatedDeformConv2dPack


def _by_loops(x, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups):
    """The definition, one multiplication at a time, in float64."""
    x, offset, mask, weight = (t.detach().double().numpy() for t in (x, offset, mask, weight))
    batch, channels, height, width = x.shape
    outs, per_group, kh, kw = weight.shape
    out_h, out_w = offset.shape[-2:]

    def shares(at, length):
        """Of each cell of a row or column in what lies at a position: 0 from one cell off on."""
        return np.maximum(1 - np.abs(np.arange(length) - at), 0)

    y = np.zeros((batch, outs, out_h, out_w))
    for n, o, i, j in np.ndindex(y.shape):
        group = o // (outs // groups)
        total = float(bias[o])
        for c, u, v in np.ndindex(per_group, kh, kw):
            channel = group * per_group + c
            g = channel // (channels // deform_groups)
            k = g * kh * kw + u * kw + v
            row = i * stride[0] - padding[0] + u * dilation[0] + offset[n, k * 2, i, j]
            col = j * stride[1] - padding[1] + v * dilation[1] + offset[n, k * 2 + 1, i, j]
            value = shares(row, height) @ x[n, channel] @ shares(col, width)
            total += weight[o, c, u, v] * value * mask[n, k, i, j]
        y[n, o, i, j] = total
    return y


# Stride, padding, dilation, groups, deformable groups.
SETTINGS = [((1, 1), (1, 1), (1, 1), 1, 1), ((2, 2), (1, 1), (1, 1), 2, 1),
            ((1, 2), (2, 0), (2, 1), 1, 2)]


def _example(stride, padding, dilation, groups, deform_groups, kernel=(3, 2), outs=2, size=(5, 6)):
    generator = torch.Generator().manual_seed(0)

    def rand(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    out = [(length + 2 * pad - step * (taps - 1) - 1) // jump + 1 for length, pad, step, taps, jump
           in zip(size, padding, dilation, kernel, stride, strict=True)]
    taps = kernel[0] * kernel[1] * deform_groups
    return (rand(2, 4, *size), rand(2, 2 * taps, *out) * 2, rand(2, taps, *out).sigmoid(),
            rand(outs, 4 // groups, *kernel), rand(outs))


@pytest.mark.parametrize('settings', SETTINGS)
def test_equals_the_loop(settings):
    """Ours, mmcv's with and without a bias, and mmcv's without modulation."""
    from mmcv.ops import deform_conv2d
    from mmcv.ops import modulated_deform_conv2d as mmcv_function
    x, offset, mask, weight, bias = _example(*settings)
    expected = _by_loops(x, offset, mask, weight, bias, *settings)
    for function in (modulated_deform_conv2d, mmcv_function):
        found = function(x, offset, mask, weight, bias, *settings)
        np.testing.assert_allclose(found, expected, atol=1e-10)
    found = mmcv_function(x, offset, mask, weight, None, *settings)
    np.testing.assert_allclose(found, expected - bias.numpy()[:, None, None], atol=1e-10)
    found = deform_conv2d(x, offset, weight, *settings)
    expected = _by_loops(x, offset, torch.ones_like(mask), weight, bias * 0, *settings)
    np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize('settings', SETTINGS)
def test_gradients(settings):
    from mmcv.ops import deform_conv2d
    from mmcv.ops import modulated_deform_conv2d as mmcv_function
    x, offset, mask, weight, bias = (tensor.requires_grad_() for tensor in _example(
        *settings, kernel=(2, 2), size=(3, 3) if settings[0] == (1, 1) else (4, 5)))
    assert gradcheck(lambda *inputs: mmcv_function(*inputs, *settings),
                     (x, offset, mask, weight, bias), fast_mode=True)
    assert gradcheck(lambda *inputs: mmcv_function(*inputs, None, *settings),
                     (x, offset, mask, weight), fast_mode=True)
    assert gradcheck(lambda *inputs: deform_conv2d(*inputs, *settings), (x, offset, weight),
                     fast_mode=True)


def test_plain_layer_on_a_map_smaller_than_its_kernel():
    from mmcv.ops import DeformConv2d
    layer = DeformConv2d(2, 3, 3, padding=1)
    x, offset = torch.randn(1, 2, 2, 2), torch.zeros(1, 18, 2, 2)
    plain = torch.nn.functional.conv2d(x, layer.weight, padding=1)
    torch.testing.assert_close(layer(x, offset), plain)


def test_the_registered_layer_is_mmcvs():
    from mmcv.ops import ModulatedDeformConv2dPack as MMCVLayer
    torch.manual_seed(0)
    ours, theirs = (layer(4, 6, 3, stride=2, padding=1, groups=2, deform_groups=2)
                    for layer in (ModulatedDeformConv2dPack, MMCVLayer))
    torch.nn.init.normal_(ours.conv_offset.weight)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 4, 7, 9)
    outputs = [layer(x) for layer in (ours, theirs)]
    torch.testing.assert_close(*outputs)
    for output in outputs:
        output.square().sum().backward()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_offsets_of_another_size():
    from mmcv.ops import deform_conv2d
    x, offset, _, weight, _ = _example(*SETTINGS[0])
    with pytest.raises((ValueError, RuntimeError), match=r'offset|do not fit'):
        deform_conv2d(x, offset[..., :1, :1], weight, *SETTINGS[0])


def test_dcn_layer_starts_as_half_a_plain_convolution():
    # Offsets start at 0 and the modulation at sigmoid(0) = 1/2.
    layer = ModulatedDeformConv2dPack(3, 4, 3, padding=1)
    x = torch.rand(1, 3, 7, 7)
    plain = torch.nn.functional.conv2d(x, layer.weight / 2, layer.bias, padding=1)
    torch.testing.assert_close(layer(x), plain)
