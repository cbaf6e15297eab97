"""Non-maximum suppression keeps what the greedy loop keeps."""

import numpy as np
import pytest
import torch

import mmkd  # noqa: F401
from mmkd.ops import nms as module
from mmkd.ops.nms import nms


def _by_loops(boxes, scores, threshold, offset):
    """The definition, one pair at a time, in float64."""
    boxes = boxes.double().tolist()
    order = sorted(range(len(boxes)), key=lambda i: -scores[i])  # a stable sort

    def area(x1, y1, x2, y2):
        return (x2 - x1 + offset) * (y2 - y1 + offset)

    kept = []
    for i in order:
        for j in kept:
            (a1, b1, a2, b2), (c1, d1, c2, d2) = boxes[i], boxes[j]
            width = min(a2, c2) - max(a1, c1) + offset
            height = min(b2, d2) - max(b1, d1) + offset
            overlap = max(width, 0) * max(height, 0)
            if overlap > threshold * (area(*boxes[i]) + area(*boxes[j]) - overlap):
                break
        else:
            kept.append(i)
    return kept


def _boxes(count, spread, seed=0):
    """Random boxes of whole pixels, of which many are alike and many scores are equal."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, spread, (count, 2), generator=generator)
    sizes = torch.randint(0, 20, (count, 2), generator=generator)
    scores = torch.randint(0, count // 2 + 1, (count,), generator=generator) / count
    return torch.cat((corners, corners + sizes), 1).float(), scores


def test_by_hand():
    # The second box overlaps the first by 81 / 119, the third by nothing.
    boxes = torch.tensor([[0., 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30]])
    scores = torch.tensor([0.8, 0.9, 0.1])
    assert nms(boxes, scores, 0.5).tolist() == [1, 2]
    assert nms(boxes, scores, 0.7).tolist() == [1, 0, 2]


def test_a_box_that_was_dropped_drops_none():
    # Each overlaps the next by 3 / 5, and the one after that by 2 / 6.
    boxes = torch.tensor([[i, 0., i + 4, 4] for i in range(1000)])
    assert nms(boxes, torch.arange(1000, 0, -1.), 0.5).tolist() == list(range(0, 1000, 2))


def test_offset_counts_pixels_inclusively():
    # One pixel each, at the same place: with offset 0 they have no area.
    boxes = torch.zeros(2, 4)
    scores = torch.tensor([0.5, 0.6])
    assert nms(boxes, scores, 0.5).tolist() == [1, 0]
    assert nms(boxes, scores, 0.5, offset=1).tolist() == [1]


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize(('count', 'spread', 'block'),
                         [(0, 1, 256), (1, 1, 256), (60, 1, 8), (300, 30, 7), (700, 60, 256)])
def test_keeps_what_the_loop_keeps(count, spread, block, offset, monkeypatch):
    monkeypatch.setattr(module, 'BLOCK', block)
    boxes, scores = _boxes(count, spread)
    for threshold in (0, 0.3, 0.7):
        expected = _by_loops(boxes, scores, threshold, offset)
        assert nms(boxes, scores, threshold, offset).tolist() == expected


def test_half_precision_has_areas_beyond_its_range():
    boxes = torch.tensor([[0., 0, 500, 500], [0, 0, 500, 480], [0, 0, 500, 200]])
    scores = torch.tensor([0.9, 0.8, 0.7])
    assert nms(boxes.half(), scores.half(), 0.5).tolist() == [0, 2]


def test_mmcv_runs_on_it():
    from mmcv.ops import batched_nms
    from mmcv.ops import nms as mmcv_nms
    boxes = torch.tensor([[0., 0, 10, 10], [1, 1, 11, 11], [1, 1, 11, 11]])
    kept, index = batched_nms(boxes, torch.tensor([0.8, 0.9, 0.7]), torch.tensor([0, 0, 1]),
                              dict(type='nms', iou_threshold=0.5))
    assert index.tolist() == [1, 2]
    assert kept.shape == (2, 5)
    boxes, scores = _boxes(100, 20)
    expected = [i for i in _by_loops(boxes, scores, 0.5, 1) if scores[i] > 0.2][:8]
    kept, index = mmcv_nms(boxes.numpy(), scores.numpy(), 0.5, 1, score_threshold=0.2, max_num=8)
    assert index.tolist() == expected
    np.testing.assert_array_equal(kept, torch.cat((boxes, scores[:, None]), 1)[expected])
