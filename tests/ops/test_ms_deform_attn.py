"""Multi-scale deformable attention, called as mmcv calls it on a GPU."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

import mmkd  # noqa: F401
from mmkd.ops.extension import has_compiled_extension

pytestmark = pytest.mark.skipif(has_compiled_extension(), reason='mmcv compiles it for GPUs only')

SHAPES = torch.tensor([[3, 4], [2, 2]])


def _attend(value, locations, weights):
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction
    starts = torch.tensor([0, 12])
    return MultiScaleDeformableAttnFunction.apply(value, SHAPES, starts, locations, weights, 64)


def _example():
    """2 images, 3 queries, 2 heads, 2 levels, 2 points, some of them outside."""
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(2, 16, 2, 3, generator=generator, dtype=torch.float64)
    locations = torch.rand(2, 3, 2, 2, 2, 2, generator=generator, dtype=torch.float64) * 1.4 - 0.2
    weights = torch.rand(2, 3, 2, 2, 2, generator=generator, dtype=torch.float64)
    return value, locations, weights


def _by_loops(value, locations, weights):
    """The definition, one cell at a time."""
    value, locations, weights = (t.numpy() for t in (value, locations, weights))
    out = np.zeros((2, 3, 2, 3))
    for b, q, head, level, point in np.ndindex(weights.shape):
        height, width = SHAPES[level].tolist()
        x, y = locations[b, q, head, level, point] * (width, height) - 0.5
        for row, column in np.ndindex(height, width):
            near = max(0, 1 - abs(y - row)) * max(0, 1 - abs(x - column))
            cell = (0, 12)[level] + row * width + column
            out[b, q, head] += weights[b, q, head, level, point] * near * value[b, cell, head]
    return out.reshape(2, 3, 6)


def test_equals_the_loop_and_has_its_gradient():
    example = _example()
    np.testing.assert_allclose(_attend(*example), _by_loops(*example), atol=1e-12)
    assert gradcheck(_attend, [tensor.requires_grad_() for tensor in example])
