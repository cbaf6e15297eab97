"""Soft non-maximum suppression, called as mmcv calls it."""

import math

import pytest
import torch

import mmkd  # noqa: F401


def _by_loops(boxes, scores, threshold, sigma, min_score, method, offset):
    """The definition, one pair at a time, in float64; returns rows of (index, score)."""
    boxes, left = boxes.tolist(), dict(enumerate(scores.tolist()))
    taken = []

    def area(x1, y1, x2, y2):
        return (x2 - x1 + offset) * (y2 - y1 + offset)

    while left:
        best = max(left, key=left.get)
        taken.append((best, left.pop(best)))
        for i in list(left):
            (a1, b1, a2, b2), (c1, d1, c2, d2) = boxes[best], boxes[i]
            overlap = (max(min(a2, c2) - max(a1, c1) + offset, 0)
                       * max(min(b2, d2) - max(b1, d1) + offset, 0))
            iou = overlap / (area(*boxes[best]) + area(*boxes[i]) - overlap) if overlap else 0
            if method == 'gaussian':
                left[i] *= math.exp(-iou ** 2 / sigma)
            elif iou >= threshold:
                left[i] *= 1 - iou if method == 'linear' else 0
            if left[i] < min_score:
                del left[i]
    return taken


def _soft_nms(*args, **kwargs):
    from mmcv.ops import soft_nms
    return soft_nms(*args, **kwargs)


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
def test_equals_the_loop(method, offset):
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(80, 2, generator=generator, dtype=torch.float64) * 30
    sizes = torch.rand(80, 2, generator=generator, dtype=torch.float64) * 20
    boxes = torch.cat((corners, corners + sizes), 1)
    scores = torch.rand(80, generator=generator, dtype=torch.float64)
    dets, index = _soft_nms(boxes, scores, 0.3, 0.5, 0.05, method, offset)
    expected = _by_loops(boxes, scores, 0.3, 0.5, 0.05, method, offset)
    assert 10 < len(expected) < 80
    assert index.tolist() == [i for i, _ in expected]
    torch.testing.assert_close(dets[:, :4], boxes[index])
    torch.testing.assert_close(dets[:, 4], dets.new_tensor([score for _, score in expected]))


@pytest.mark.parametrize(('method', 'score'), [('linear', 0.4), ('gaussian', 0.8 / math.e ** 0.5)])
def test_by_hand(method, score):
    # The second box is the upper half of the first; the third lies elsewhere.
    boxes = torch.tensor([[0., 0, 4, 4], [0, 0, 4, 2], [8, 8, 9, 9]])
    scores = torch.tensor([0.9, 0.8, 0.5])
    dets, index = _soft_nms(boxes, scores, 0.5, 0.5, 0, method)
    assert index.tolist() == [0, 2, 1]
    torch.testing.assert_close(dets[:, 4], torch.tensor([0.9, 0.5, score]))
    torch.testing.assert_close(scores, torch.tensor([0.9, 0.8, 0.5]))  # not changed in place


def test_edges():
    dets, index = _soft_nms(torch.zeros(0, 4), torch.zeros(0))
    assert dets.shape == (0, 5) and index.shape == (0,)
    # The best box is taken whatever its score; boxes without area overlap nothing.
    boxes, scores = torch.zeros(3, 4), torch.tensor([0.1, 0.2, 0.3])
    assert _soft_nms(boxes, scores, min_score=0.5)[1].tolist() == [2]
    for method in ('naive', 'linear', 'gaussian'):
        assert _soft_nms(boxes, scores, method=method)[1].tolist() == [2, 1, 0]


def test_batched_nms_runs_on_it():
    from mmcv.ops import batched_nms
    boxes = torch.tensor([[0., 0, 4, 4], [0, 0, 4, 2], [0, 0, 4, 4]])
    dets, index = batched_nms(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 0, 1]),
                              dict(type='soft_nms', iou_threshold=0.3, method='linear'))
    assert index.tolist() == [0, 2, 1]
    torch.testing.assert_close(dets[:, 4], torch.tensor([0.9, 0.7, 0.4]))
