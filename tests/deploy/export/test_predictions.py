"""What the check of a dense detector's or DETR's export accepts and refuses, by hand."""

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from reference import detections

from mmkd.deploy.device.nms import Nms
from mmkd.deploy.export.agreement import FLOAT16, FLOAT32, MismatchError
from mmkd.deploy.export.predictions import check_predictions
from mmkd.deploy.export.two_stage_candidates import _doubtful

NMS = Nms(iou_threshold=0.5, class_aware=True, max_per_img=3, score_thr=0.05)
# An IoU of exactly a half between the first two.
LARGE, HALF, FAR = (0.9, 0, 0, 0, 10, 10), (0.6, 0, 0, 0, 10, 5), (0.5, 1, 30, 30, 40, 40)


def check(found, expected, nms=NMS, candidates=(), **options):
    everything = (*candidates, *expected)
    return check_predictions(detections(*found), detections(*expected), detections(*everything),
                             nms, **options)


def test_same_detections_in_any_order():
    for found in ((LARGE, FAR), (FAR, LARGE)):
        agreement = check(found, (LARGE, FAR))
        assert (agreement.inputs, agreement.boxes, agreement.box_difference) == (1, 2, 0)
    assert check((), ()).boxes == 0


def test_differences_within_the_tolerance_are_reported():
    agreement = check([(0.90005, 0, 0, 0, 10, 10.005)], [LARGE])
    assert agreement.score_difference == pytest.approx(5e-5, rel=1e-2)
    assert agreement.box_difference == pytest.approx(5e-3, rel=1e-2)
    assert check([(0.905, 0, 0, 0, 10, 10.2)], [LARGE], tolerance=FLOAT16).boxes == 1


@pytest.mark.parametrize(('found', 'expected', 'message'), [
    ([(0.9, 0, 0, 0, 10, 10.1)], [LARGE], 'no such detection: label 0, score 0.9'),
    ([(0.901, 0, 0, 0, 10, 10)], [LARGE], 'no such detection'),
    ([(0.9, 1, 0, 0, 10, 10)], [LARGE], 'no such detection: label 1'),
    ([(np.nan, 0, 0, 0, 10, 10)], [LARGE], 'no such detection'),
    ([(0.9, 0, 0, 0, 10, np.nan)], [LARGE], 'no such detection'),
    ([LARGE, LARGE], [LARGE], 'no such detection'),
    ([LARGE], [LARGE, FAR], 'missing: label 1, score 0.5'),
    ([FAR], [LARGE, FAR], 'missing: label 0, score 0.9'),
    ([], [FAR], 'missing'),
])
def test_what_differs_is_named(found, expected, message):
    for nms in (NMS, None):
        with pytest.raises(MismatchError, match=message):
            # A list of DETR's is always full: then what scores least may differ.
            check(found, expected, nms, candidates=[FAR]) if nms else check(
                [*found, (0.001, 2, 0, 0, 1, 1)], [*expected, (0.001, 2, 0, 0, 1, 1)], nms)


def test_a_pair_that_overlaps_by_the_threshold():
    assert check([LARGE, HALF], [LARGE], candidates=[HALF]).boxes == 1
    assert check([LARGE], [LARGE, HALF]).boxes == 1
    with pytest.raises(MismatchError, match='no such'):
        check([LARGE, HALF], [LARGE])  # PyTorch has no such candidate
    with pytest.raises(MismatchError, match='missing'):
        check([LARGE], [LARGE, (0.6, 0, 0, 0, 10, 4.9)])
    other_class = (0.6, 1, 0, 0, 10, 5)
    with pytest.raises(MismatchError, match='missing'):
        check([LARGE], [LARGE, other_class])
    check([LARGE], [LARGE, other_class], Nms(0.5, False, 3, 0.05))


def test_of_two_equal_scores_either_may_drop_the_other():
    other = (0.90001, 0, 0, 1, 10, 10)
    assert check([other], [LARGE], candidates=[other]).boxes == 0
    with pytest.raises(MismatchError, match='no such'):
        check([other], [LARGE])


def test_the_last_places_may_go_to_either():
    last = [(0.30001, 2, 0, 0, 5, 5)], [(0.3, 2, 60, 60, 65, 65)]
    assert check([LARGE, FAR, *last[0]], [LARGE, FAR, *last[1]], candidates=last[0]).boxes == 2
    with pytest.raises(MismatchError):
        check([LARGE, *last[0]], [LARGE, *last[1]], candidates=last[0])
    assert check([LARGE, (0.05005, 0, 70, 0, 80, 9)], [LARGE],
                 candidates=[(0.05005, 0, 70, 0, 80, 9)]).boxes == 1
    assert check([LARGE, *last[0]], [LARGE, *last[1]], None, candidates=last[0]).boxes == 1


def test_what_stands_or_falls_with_a_doubtful_proposal():
    doubtful = detections(LARGE)
    # It may be missing, and may be there, but not in another place.
    assert check([FAR], [LARGE, FAR], doubtful=doubtful).boxes == 1
    assert check([LARGE, FAR], [FAR], candidates=[LARGE], doubtful=doubtful).boxes == 1
    with pytest.raises(MismatchError, match='no such detection'):
        check([(0.9, 0, 0, 0, 10, 11), FAR], [FAR], candidates=[LARGE], doubtful=doubtful)
    with pytest.raises(MismatchError, match='missing: label 1'):
        check([LARGE], [LARGE, FAR], doubtful=doubtful)


def test_which_proposals_are_doubtful():
    """By hand: all of an RPN's boxes, those that it keeps, and its threshold of a half."""
    cfg = ConfigDict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=4)
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 4], [30, 30, 40, 40],
                          [30, 30, 40, 39], [60, 60, 70, 70], [80, 80, 90, 90]]).float()
    every = InstanceData(bboxes=boxes, scores=torch.tensor([.9, .8, .7, .6, .5, .4, .3]))

    def doubtful(kept):
        found = _doubtful(every, every[kept], cfg, FLOAT32)
        return [index for index, box in enumerate(boxes) if (found == box).all(1).any()]

    # The first two overlap by exactly the threshold; the third overlaps the second by more.
    assert doubtful([0, 1, 3]) == [0, 1, 2]
    # The last one kept stands at the limit.
    assert doubtful([0, 1, 3, 5]) == [0, 1, 2, 5]
    every.scores[6] = every.scores[5]
    assert doubtful([0, 1, 3, 5]) == [0, 1, 2, 5, 6]
