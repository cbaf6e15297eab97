"""RoIAlign, called as mmcv calls it."""

import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

import mmkd  # noqa: F401
from mmkd.ops import roi_align as module
from mmkd.ops._roi_points import axis_points


def _roi_align(*args):
    from mmcv.ops import roi_align
    return roi_align(*args)


def _bilinear(plane, y, x):
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    rows, columns = (np.maximum(1 - np.abs(np.arange(length) - np.clip(at, 0, length - 1)), 0)
                     for at, length in ((y, height), (x, width)))
    return rows @ plane @ columns


def _by_loops(x, rois, grid, scale, ratio, mode, aligned):
    """The definition, one point at a time, in float64."""
    x, rois = x.double().numpy(), rois.double().numpy()
    out = np.zeros((len(rois), x.shape[1], *grid))
    for n, c, p, q in np.ndindex(out.shape):
        shift = 0.5 if aligned else 0
        x1, y1, x2, y2 = rois[n, 1:] * scale - shift
        sizes = [y2 - y1, x2 - x1] if aligned else [max(y2 - y1, 1), max(x2 - x1, 1)]
        bins = [size / count for size, count in zip(sizes, grid, strict=True)]
        counts = [ratio or math.ceil(size) for size in bins]
        values = [_bilinear(x[int(rois[n, 0]), c], y1 + (p + (i + 0.5) / counts[0]) * bins[0],
                            x1 + (q + (j + 0.5) / counts[1]) * bins[1])
                  for i, j in np.ndindex(*counts)]
        if values:
            out[n, c, p, q] = max(values) if mode == 'max' else sum(values) / len(values)
    return out


def _example(count=9, dtype=torch.float64):
    """Boxes of all shapes, some of them partly or wholly outside a map of 2 x 9 x 7 cells."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 2, 9, 7, generator=generator, dtype=torch.float64)
    centres = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 40 - 6
    halves = torch.rand(count, 2, generator=generator, dtype=torch.float64) ** 2 * 16
    places = torch.randint(0, 3, (count, 1), generator=generator)
    return x.to(dtype), torch.cat((places, centres - halves, centres + halves), 1).to(dtype)


@pytest.mark.parametrize('mode', ['avg', 'max'])
@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
def test_equals_the_loop(ratio, aligned, mode):
    x, rois = _example()
    arguments = (3, 2), 0.25, ratio, mode, aligned
    found, expected = (function(x, rois, *arguments) for function in (_roi_align, _by_loops))
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert gradcheck(lambda x: _roi_align(x, rois[:5], *arguments), x.requires_grad_(),
                     fast_mode=True)


def test_groups_of_boxes_change_nothing(monkeypatch):
    x, rois = _example(40)
    x.requires_grad_()
    results = []
    for cells in (module.CELLS, 100):
        monkeypatch.setattr(module, 'CELLS', cells)
        out = _roi_align(x, rois, 3, 0.25, 0, 'avg', True)
        results.append((out, torch.autograd.grad(out.square().sum(), x)[0]))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_boxes_far_larger_than_the_map():
    x, _ = _example()
    rois = torch.tensor([[0, -310, -201, 107, 40], [1, 8, -107, 12, 301], [2, 4, 8, 4e5, 9]],
                        dtype=torch.float64)
    found = _roi_align(x, rois[:2], (3, 2), 0.25, 0, 'avg', True)
    np.testing.assert_allclose(found, _by_loops(x, rois[:2], (3, 2), 0.25, 0, 'avg', True),
                               atol=1e-12)
    axis = axis_points(rois[2:, 1], rois[2:, 3] - rois[2:, 1], 2, 7, 0, True)
    assert axis.count.item() == 199998 and axis.positions.shape[-1] < 20


def _cells():
    """A map whose cells are numbered from 0 to 15."""
    return torch.arange(16.).view(1, 1, 4, 4)


@pytest.mark.parametrize(('box', 'aligned', 'expected'), [
    ((0, 0, 4, 4), True, 7.5),  # all cells
    ((1, 1, 2, 2), True, 5),  # one cell
    ((1, 1, 2, 2), False, 7.5),  # its lower right corner
    ((2, 2, 2, 2), True, 0),  # no size, so no points
    ((1, 1, 1, 1), False, 7.5),  # at least one cell large
    ((-4, 0, 0, 4), True, 1.5),  # one point of four in reach of the map, moved to the left border
    ((9, 0, 12, 4), True, 0),  # outside
    ((0, float('nan'), 4, 4), True, 0),
])
def test_by_hand(box, aligned, expected):
    for mode in ('avg', 'max')[:1 if expected else 2]:
        out = _roi_align(_cells(), torch.tensor([[0., *box]]), 1, 1.0, 0, mode, aligned)
        assert out.item() == expected


def test_maximum_by_hand():
    x = _cells().requires_grad_()
    out = _roi_align(x, torch.tensor([[0., 0, 0, 4, 4]]), 2, 1.0, 0, 'max', True)
    assert out.flatten().tolist() == [5, 7, 13, 15]
    out.sum().backward()
    assert x.grad.flatten().nonzero().flatten().tolist() == [5, 7, 13, 15]


@pytest.mark.parametrize(('count', 'dtype'), [(0, torch.float32), (1000, torch.bfloat16)])
@pytest.mark.parametrize('mode', ['avg', 'max'])
def test_no_boxes_and_so_many_that_half_precision_cannot_sum_them_up(mode, count, dtype):
    x = _cells().to(dtype).requires_grad_()
    rois = torch.tensor([[0., 1, 1, 2, 2]]).repeat(count, 1).to(dtype)
    out = _roi_align(x, rois, 1, 1.0, 0, mode, True)
    assert out.shape == (count, 1, 1, 1)
    out.sum().backward()
    assert x.grad[0, 0, 1, 1] == x.grad.abs().sum() == count


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_other_dtypes_and_layouts(dtype):
    x, rois = _example()
    x = x.to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    out = _roi_align(x, rois.to(dtype), 3, 0.25, 0, 'avg', True)
    out.sum().backward()
    assert out.dtype == x.grad.dtype == dtype
    expected = _by_loops(x.detach(), rois.to(dtype), (3, 3), 0.25, 0, 'avg', True)
    np.testing.assert_allclose(out.detach().double(), expected,
                               atol=1e-5 if dtype == torch.float32 else 2e-2)
