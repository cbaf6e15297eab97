"""NMS in NumPy keeps what plain loops and mmcv's batched_nms keep."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from handmade_models import DETECTOR, metadata, save
from mmcv.ops import batched_nms, nms
from reference import by_loops

from mmkd.deploy import Detector
from mmkd.deploy.device.nms import Nms, greedy_nms
from mmkd.errors import UserError

NMS = Nms(iou_threshold=0.5, class_aware=True, max_per_img=100, score_thr=0.05)


def boxes_of(generator, count, reach=0):
    corners = generator.uniform(-reach, 60, (count, 2))
    sides = generator.uniform(5, 40, (count, 2))
    return np.concatenate((corners, corners + sides), 1).astype(np.float32)


@pytest.mark.parametrize('threshold', [0.3, 0.5, 0.65])
def test_equals_loops_and_mmcv(threshold):
    generator = np.random.default_rng(0)
    for count in (1, 2, 50, 300):
        boxes, scores = boxes_of(generator, count), generator.random(count, np.float32)
        kept = greedy_nms(boxes, scores, threshold)
        assert kept.tolist() == by_loops(boxes, scores, threshold)
        assert kept.tolist() == nms(torch.from_numpy(boxes), torch.from_numpy(scores),
                                    threshold)[1].tolist()
        assert greedy_nms(boxes, scores, threshold, 5).tolist() == kept[:5].tolist()
    assert greedy_nms(boxes[:0], scores[:0], threshold).shape == (0,)


def test_the_better_of_two_boxes_by_hand():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 4.9], [5, 5, 5, 5], [5, 5, 5, 5]],
                     np.float32)
    # An IoU of exactly the threshold is no more than it; boxes of no area overlap nothing.
    assert greedy_nms(boxes, np.array([3, 2, 1, .5, .4]), 0.5).tolist() == [0, 1, 3, 4]
    assert greedy_nms(boxes, np.array([1, 3, 2, .5, .4]), 0.49).tolist() == [1, 3, 4]


@pytest.mark.parametrize('options', [
    dict(), dict(class_agnostic=True), dict(split_thr=100), dict(split_thr=100, reach=100),
    dict(reach=200), dict(max_per_img=7), dict(max_per_img=7, split_thr=100), dict(max_per_img=0)])
def test_equals_batched_nms(options):
    generator = np.random.default_rng(1)
    boxes = boxes_of(generator, 200, options.get('reach', 0))
    scores, labels = generator.random(200, np.float32), generator.integers(0, 3, 200)
    cfg = dict(type='nms', iou_threshold=0.5,
               **{key: options[key] for key in ('class_agnostic', 'split_thr') if key in options})
    limit = options.get('max_per_img', 100)
    _, kept = batched_nms(*map(torch.from_numpy, (boxes, scores, labels)), cfg)
    kept = kept.numpy()[:limit or None]
    ours = Nms(0.5, not options.get('class_agnostic'), limit, 0.05, clip=False,
               split=options.get('split_thr', 10000)).detections(boxes, scores, labels, (100, 100))
    for found, expected in zip(ours, (boxes, scores, labels), strict=True):
        np.testing.assert_array_equal(found, expected[kept])


def test_clips_and_leaves_out_what_is_small_or_nothing():
    boxes = np.array([[-5, 10, 30, 60], [45, 0, 60, 20], [0, 0, 9, 9], [20, 20, 22, 30]],
                     np.float32)
    scores, labels = np.array([0.5, 0.9, 0, 0.6], np.float32), np.array([1, 2, 0, 2])
    values = asdict(NMS) | dict(min_size=0)
    found = Nms(**values).detections(boxes, scores, labels, (50, 40))
    assert found[0].tolist() == [[20, 20, 22, 30], [0, 10, 30, 50]]
    assert [part.tolist() for part in found[1:]] == [pytest.approx([0.6, 0.5]), [2, 1]]
    found = Nms(**values | dict(min_size=2, clip=False)).detections(boxes, scores, labels, (50, 40))
    assert found[0].tolist() == [[45, 0, 60, 20], [-5, 10, 30, 60]]
    nothing = NMS.detections(boxes, scores * 0, labels, (50, 40))
    assert [part.shape for part in nothing] == [(0, 4), (0,), (0,)]


def test_the_runtime_applies_it(tmp_path):
    # Both objects have the size of the image and labels 2 and 1.
    image = np.full((8, 8, 3), (0, 100, 200), np.uint8)
    for about, labels in ((NMS, [2, 1]), (Nms(0.5, False, 100, 0.05), [2]),
                          (Nms(0.5, True, 1, 0.05), [2])):
        found = Detector(save(tmp_path / 'a.onnx', metadata(nms=about)))(image)
        assert found.labels.tolist() == labels
        assert found.boxes.tolist() == [[0, 0, 8, 8]] * len(labels)


def test_a_model_that_takes_sizes(tmp_path):
    graph = DETECTOR.format(type='float', number=1, n='n', h=8, w=8)
    for old, new in {'image)\n': 'image, int64[n, 2] sizes)\n',
                     'Shape <start = 2> (image)': 'ReduceMax <keepdims = 0> (sizes, first)',
                     '    axes =': '    first = Constant <value = int64[1] {0}> ()\n    axes =',
                     }.items():
        graph = graph.replace(old, new, 1)
    detector = Detector(save(tmp_path / 'a.onnx', metadata(takes_sizes=True), graph))
    # 4 x 8 pixels stay as they are, above 4 rows of padding; 16 x 4 are halved.
    found, narrow = (detector(np.full((*size, 3), 50, np.uint8)) for size in ((4, 8), (16, 4)))
    assert found.boxes.tolist() == [[0, 0, 8, 4]] * 2
    assert narrow.boxes.tolist() == [[0, 0, 4, 16]] * 2
    with pytest.raises(UserError, match='input image and sizes'):
        Detector(save(tmp_path / 'b.onnx', metadata(takes_sizes=True)))
