"""mmcv without its compiled extension."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import mmkd  # noqa: F401
from mmkd.ops.deform_conv import ModulatedDeformConv2dPack, modulated_deform_conv2d
from mmkd.ops.extension import has_compiled_extension
from mmkd.ops.nms import nms


def test_import_mmkd_is_free_of_torch_and_mmengine():
    code = ("import sys, mmkd; "
            "assert not {'torch', 'mmengine', 'mmcv', 'numpy'} & set(sys.modules), 'heavy import'")
    subprocess.run([sys.executable, '-c', code], check=True)


def test_mmdet_models_import_and_name_what_is_missing():
    import mmdet.models  # noqa: F401
    from mmcv.ops import RoIPool
    if has_compiled_extension():
        pytest.skip('this mmcv was compiled')
    with pytest.raises(NotImplementedError, match='roi_pool_forward'):
        RoIPool(2)(torch.rand(1, 1, 8, 8), torch.tensor([[0., 0, 0, 4, 4]]))


def test_nms_by_hand():
    # The second box overlaps the first by 81 / 119, the third by nothing.
    boxes = torch.tensor([[0., 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30]])
    scores = torch.tensor([0.8, 0.9, 0.1])
    assert nms(boxes, scores, 0.5).tolist() == [1, 2]
    assert nms(boxes, scores, 0.7).tolist() == [1, 0, 2]


def test_mmcv_batched_nms_runs_on_it():
    from mmcv.ops import batched_nms
    boxes = torch.tensor([[0., 0, 10, 10], [1, 1, 11, 11], [1, 1, 11, 11]])
    kept, index = batched_nms(boxes, torch.tensor([0.8, 0.9, 0.7]), torch.tensor([0, 0, 1]),
                              dict(type='nms', iou_threshold=0.5))
    assert index.tolist() == [1, 2]
    assert kept.shape == (2, 5)


def _deform_conv_by_loops(x, offset, mask, weight, bias, stride, padding, dilation, groups,
                          deform_groups):
    """The definition, one multiplication at a time, in float64."""
    x, offset, mask, weight = (np.asarray(t, dtype=np.float64) for t in (x, offset, mask, weight))
    batch, channels, height, width = x.shape
    outs, per_group, kh, kw = weight.shape
    out_h, out_w = offset.shape[-2:]

    def pixel(n, c, r, q):
        return x[n, c, r, q] if 0 <= r < height and 0 <= q < width else 0.0

    y = np.zeros((batch, outs, out_h, out_w))
    for n, o, i, j in np.ndindex(y.shape):
        group = o // (outs // groups)
        total = float(bias[o])
        for c, u, v in np.ndindex(per_group, kh, kw):
            channel = group * per_group + c
            g = channel // (channels // deform_groups)
            k = u * kw + v
            row = i * stride - padding + u * dilation + offset[n, (g * kh * kw + k) * 2, i, j]
            col = j * stride - padding + v * dilation + offset[n, (g * kh * kw + k) * 2 + 1, i, j]
            r0, c0 = int(np.floor(row)), int(np.floor(col))
            fr, fc = row - r0, col - c0
            value = ((1 - fr) * (1 - fc) * pixel(n, channel, r0, c0)
                     + (1 - fr) * fc * pixel(n, channel, r0, c0 + 1)
                     + fr * (1 - fc) * pixel(n, channel, r0 + 1, c0)
                     + fr * fc * pixel(n, channel, r0 + 1, c0 + 1))
            total += weight[o, c, u, v] * value * mask[n, g * kh * kw + k, i, j]
        y[n, o, i, j] = total
    return y


@pytest.mark.parametrize('stride, padding, dilation, groups, deform_groups',
                         [(1, 1, 1, 1, 1), (2, 1, 1, 2, 1), (1, 2, 2, 1, 2)])
def test_deform_conv_equals_the_definition(stride, padding, dilation, groups, deform_groups):
    generator = torch.Generator().manual_seed(0)

    def rand(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x, weight, bias = rand(2, 4, 5, 6), rand(2, 4 // groups, 3, 3), rand(2)
    out_h = (5 + 2 * padding - 2 * dilation - 1) // stride + 1
    out_w = (6 + 2 * padding - 2 * dilation - 1) // stride + 1
    offset = rand(2, 18 * deform_groups, out_h, out_w) * 2
    mask = torch.rand(2, 9 * deform_groups, out_h, out_w, generator=generator, dtype=torch.float64)
    ours = modulated_deform_conv2d(x, offset, mask, weight, bias, (stride, stride),
                                   (padding, padding), (dilation, dilation), groups, deform_groups)
    expected = _deform_conv_by_loops(x, offset, mask, weight, bias, stride, padding, dilation,
                                     groups, deform_groups)
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-10)


def test_dcn_layer_starts_as_half_a_plain_convolution():
    # Offsets start at 0 and the modulation at sigmoid(0) = 1/2.
    layer = ModulatedDeformConv2dPack(3, 4, 3, padding=1)
    x = torch.rand(1, 3, 7, 7)
    plain = torch.nn.functional.conv2d(x, layer.weight / 2, layer.bias, padding=1)
    torch.testing.assert_close(layer(x), plain)
