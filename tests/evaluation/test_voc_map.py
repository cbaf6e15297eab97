"""Average precision against the development kit's rules, as loops, by hand and in MMDetection."""

from collections import Counter

import numpy as np
import pytest
from voc_devkit import area, devkit, draw, eleven_points, judge

import mmkd  # noqa: F401
from mmkd.evaluation.voc_map import (
    Detections,
    Objects,
    average_precision_11points,
    average_precision_area,
    mean_average_precision,
    voc_average_precision,
)


def _detections(*rows):
    """``(box, score)`` rows of class 0."""
    return Detections(np.array([box for box, _ in rows], dtype=np.float32).reshape(-1, 4),
                      np.array([score for _, score in rows]), np.zeros(len(rows), dtype=int))


def _objects(*boxes, difficult=None):
    return Objects(np.array(boxes, dtype=np.float32).reshape(-1, 4),
                   np.zeros(len(boxes), dtype=int),
                   np.array(difficult or [False] * len(boxes), dtype=bool))


def _one_class(detections, objects, iou_thr=0.5):
    return voc_average_precision([detections], [objects], num_classes=1, iou_thr=iou_thr)[0]


def _assert_like_devkit(detections, objects, classes, iou_thr):
    results = voc_average_precision(detections, objects, classes, iou_thr)
    assert len(results) == classes
    for label, result in enumerate(results):
        num, recall, precision, ap_11points, ap_area = devkit(detections, objects, label, iou_thr)
        assert (result.num_objects, result.num_detections) == (num, len(recall))
        np.testing.assert_allclose(result.recall, recall, rtol=0, atol=1e-12)
        np.testing.assert_allclose(result.precision, precision, rtol=0, atol=1e-12)
        np.testing.assert_allclose(result.ap_11points, ap_11points, rtol=0, atol=1e-9)
        np.testing.assert_allclose(result.ap_area, ap_area, rtol=0, atol=1e-9)


@pytest.mark.parametrize('iou_thr', [0.3, 0.5, 0.7])
@pytest.mark.parametrize('whole_pixels', [True, False])
@pytest.mark.parametrize('tied_scores', [True, False])
def test_equals_the_devkit_on_random_data(iou_thr, whole_pixels, tied_scores):
    for seed in range(60):
        detections, objects = draw(seed, whole_pixels=whole_pixels, tied_scores=tied_scores)
        _assert_like_devkit(detections, objects, 3, iou_thr)


def test_random_data_holds_every_kind_of_judgement():
    # Otherwise the comparison above would be an easy one.
    count, at_one_half = Counter(), 0
    for seed in range(60):
        data = draw(seed)
        for label in range(3):
            verdicts = judge(*data, label)[1]
            count.update(verdicts)
            at_one_half += verdicts != judge(*data, label, np.nextafter(0.5, 1))[1]
    assert min(count[name] for name in ('hit', 'duplicate', 'elsewhere', 'difficult')) > 50
    assert at_one_half > 5


@pytest.mark.parametrize('eval_mode', ['11points', 'area'])
def test_equals_mmdet_eval_map(eval_mode):
    from mmdet.evaluation.functional import eval_map
    # MMDetection loses the order of ordinary and `difficult` objects and computes IoU in float32;
    # boxes that are no whole pixels have no equal IoUs to stumble over.
    detections, objects = draw(7, images=60, whole_pixels=False)
    theirs_mean, theirs = eval_map(
        [[np.column_stack([d.boxes, d.scores])[d.labels == c] for c in range(3)]
         for d in detections],
        [dict(bboxes=o.boxes[~o.difficult], labels=o.labels[~o.difficult],
              bboxes_ignore=o.boxes[o.difficult], labels_ignore=o.labels[o.difficult])
         for o in objects],
        iou_thr=0.5, eval_mode=eval_mode, use_legacy_coordinate=True, nproc=1, logger='silent')
    name, in_float64 = {'11points': ('ap_11points', eleven_points),
                        'area': ('ap_area', area)}[eval_mode]
    results = voc_average_precision(detections, objects, 3)
    for result, their in zip(results, theirs, strict=True):
        assert (result.num_objects, result.num_detections) == (their['num_gts'], their['num_dets'])
        assert result.recall[-1] > 0
        np.testing.assert_allclose(result.recall, their['recall'], rtol=0, atol=1e-12)
        # It stores precision and average precision in float32 …
        np.testing.assert_allclose(result.precision, their['precision'], rtol=0, atol=1e-7)
        np.testing.assert_allclose(getattr(result, name), their['ap'], rtol=0, atol=1e-6)
        # … from which the number of judged detections, and with it the exact value, follows.
        tp = np.round(their['recall'] * their['num_gts'])
        judged = np.round(tp / np.maximum(their['precision'], 1e-9))
        exact = in_float64(list(tp / their['num_gts']), list(tp / np.maximum(judged, 1)))
        np.testing.assert_allclose(getattr(result, name), exact, rtol=0, atol=1e-9)
    mean = mean_average_precision(getattr(result, name) for result in results)
    np.testing.assert_allclose(mean, theirs_mean, rtol=0, atol=1e-6)


BOX, HARD, AWAY, LARGER = [0, 0, 9, 9], [30, 30, 39, 39], [60, 60, 69, 69], [0, 0, 9, 12]
BETWEEN, BESIDE = [2, 0, 11, 9], [4, 0, 13, 9]


@pytest.mark.parametrize(('detections', 'objects', 'difficult', 'recall', 'precision'), [
    # By score: hit, elsewhere, second time.
    ([(BOX, 0.3), (BOX, 0.8), (AWAY, 0.5)], [BOX], None, [1, 1, 1], [1, 1 / 2, 1 / 3]),
    # Both objects are overlapped by more than half, the first by more than the second: once taken
    # it does not pass the detection on.
    ([(BOX, 0.9), ([0, 0, 9, 8], 0.8)], [BOX, LARGER], None, [0.5, 0.5], [1, 1 / 2]),
    ([(BOX, 0.9), ([0, 0, 9, 8], 0.8)], [LARGER], None, [1, 1], [1, 1 / 2]),
    # Of two that are overlapped equally the first counts.
    ([(BETWEEN, 0.9)], [BOX, BESIDE], [True, False], [0], [0]),
    ([(BETWEEN, 0.9)], [BOX, BESIDE], [False, True], [1], [1]),
    # Difficult ones are neither hit nor miss.
    ([(HARD, 0.9), (HARD, 0.8), (BOX, 0.7), (AWAY, 0.6)], [HARD, BOX], [True, False],
     [0, 0, 1, 1], [0, 0, 1, 1 / 2]),
], ids=['second', 'taken', 'free', 'difficult first', 'difficult second', 'difficult'])
def test_hits_and_misses_by_hand(detections, objects, difficult, recall, precision):
    result = _one_class(_detections(*detections), _objects(*objects, difficult=difficult))
    assert (result.recall.tolist(), result.precision.tolist()) == (recall, precision)
    assert result.num_objects == len(objects) - sum(difficult or [])
    all_found = recall[-1] == 1
    assert (result.ap_11points == 1, result.ap_area == 1) == (all_found, all_found)


@pytest.mark.parametrize(('box', 'other', 'iou_thr', 'ap'), [
    # 10 x 10 inside 10 x 20 pixels, the last ones included: x2 - x1 would give 81 / 171.
    ([0, 0, 9, 19], BOX, 0.5, 1), ([0, 0, 9, 20], BOX, 0.5, 0), ([0, 0, 9, 19], BOX, 0.51, 0),
    # One pixel in common, and none.
    (BOX, [9, 9, 18, 18], 1 / 199, 1), (BOX, [10, 9, 18, 18], 1 / 199, 0),
    # Turned inside out.
    ([9, 9, -20, -20], BOX, 1e-6, 0)])
def test_overlaps_by_hand(box, other, iou_thr, ap):
    assert _one_class(_detections((box, 1)), _objects(other), iou_thr).ap_area == ap


def test_equal_scores_keep_their_order():
    box, elsewhere = [0, 0, 9, 9], [50, 50, 59, 59]
    images = [(_detections((elsewhere, 0.5)), _objects()),
              (_detections((box, 0.5), (elsewhere, 0.5)), _objects(box))]
    detections, objects = zip(*images, strict=True)
    assert voc_average_precision(detections, objects, 1)[0].precision.tolist() == [0, 1 / 2, 1 / 3]
    reverse = voc_average_precision(detections[::-1], objects[::-1], 1)[0]
    assert reverse.precision.tolist() == [1, 1 / 2, 1 / 3]


def test_both_rules_on_a_curve_by_hand():
    # Hit, miss, hit, miss, hit with four objects.
    recall = np.array([1, 1, 2, 2, 3]) / 4
    precision = np.array([1, 1 / 2, 2 / 3, 1 / 2, 3 / 5])
    # 0 to 0.2: 1; 0.3 to 0.5: 2/3; 0.6 and 0.7: 3/5; nothing from 0.8 on.
    assert average_precision_11points(recall, precision) == pytest.approx(
        (3 * 1 + 3 * 2 / 3 + 2 * 3 / 5) / 11, abs=1e-12)
    assert average_precision_area(recall, precision) == pytest.approx(
        (1 + 2 / 3 + 3 / 5) / 4, abs=1e-12)


@pytest.mark.parametrize(('hits', 'points'), [(1, 2), (2, 3), (3, 3), (4, 5), (5, 6), (6, 6),
                                              (7, 7), (8, 9), (9, 10), (10, 11)])
def test_recall_of_3_6_and_7_tenths_does_not_reach_its_own_threshold(hits, points):
    recall = np.arange(1, hits + 1) / 10
    ap = average_precision_11points(recall, np.ones(hits))
    assert ap == pytest.approx(points / 11, abs=1e-12)


def test_classes_without_objects_are_left_out_of_the_mean():
    box = np.array([[0, 0, 9, 9]], dtype=np.float32)
    detections = [Detections(box.repeat(2, 0), np.array([0.9, 0.8]), np.array([0, 2]))]
    objects = [Objects(box.repeat(3, 0), np.array([0, 1, 2]), np.array([False, False, True]))]
    aps = [result.ap_area for result in voc_average_precision(detections, objects, 4)]
    assert aps[:2] == [1, 0]
    assert np.isnan(aps[2:]).all()
    assert mean_average_precision(aps) == 0.5
    assert mean_average_precision(aps[2:]) == 0


def test_nothing_to_judge():
    empty, box = _detections(), [0, 0, 9, 9]
    assert np.isnan(voc_average_precision([], [], 2)[1].ap_area)
    assert np.isnan(_one_class(empty, _objects()).ap_11points)
    undetected = _one_class(empty, _objects(box))
    assert (undetected.ap_area, undetected.ap_11points, undetected.num_objects) == (0, 0, 1)
    unwanted = _one_class(_detections((box, 0.5)), _objects())
    assert np.isnan(unwanted.ap_area)
    assert unwanted.precision.tolist() == [0]


def test_mistaken_arguments_are_refused():
    box = [0, 0, 9, 9]
    with pytest.raises(ValueError, match='1 images and objects for 2'):
        voc_average_precision([_detections()], [_objects(), _objects()], 1)
    with pytest.raises(ValueError, match='from 3 to 3: with 2 classes'):
        voc_average_precision([_detections()], [Objects(np.array([box]), np.array([3]),
                                                        np.array([False]))], 2)
