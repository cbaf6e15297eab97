"""What the check of an export accepts and refuses, on maps drawn by hand."""

import numpy as np
import pytest
import torch
from reference import detections

from mmkd.deploy.export.agreement import (
    FLOAT16,
    MismatchError,
    check_detections,
    check_scores,
    predict_maps,
)
from mmkd.deploy.export.verify import find_images
from mmkd.errors import UserError


def maps():
    """One class, 4 x 4 cells: peaks of 0.9 at (0, 0) and 0.5 at (3, 3), the rest 0.01.

    The box of row r and column c is (10 c, 10 r, 10 c + 8, 10 r + 8).
    """
    heatmap = np.full((1, 4, 4), 0.01)
    heatmap[0, 0, 0], heatmap[0, 3, 3] = 0.9, 0.5
    rows, columns = np.indices((4, 4)) * 10.0
    return heatmap, np.stack((columns, rows, columns + 8, rows + 8), axis=-1)


FIRST, SECOND = (0.9, 0, 0, 0, 8, 8), (0.5, 0, 30, 30, 38, 38)


def test_same_detections_in_any_order():
    for rows in ((FIRST, SECOND), (SECOND, FIRST)):
        agreement = check_detections(detections(*rows), *maps())
        assert agreement.boxes == 2
        assert agreement.box_difference == 0


def test_differences_within_the_tolerance_are_reported():
    agreement = check_detections(
        detections((0.90005, 0, 0.005, 0, 8, 8), (0.5, 0, 30, 30, 38, 38.002)), *maps())
    assert agreement.score_difference == pytest.approx(5e-5, rel=1e-2)
    assert agreement.box_difference == pytest.approx(5e-3, rel=1e-2)


def test_large_coordinates_have_a_larger_rounding_error():
    heatmap, boxes = maps()
    far = (0.5, 0, 30000, 30000, 38000, 38000.3)
    with pytest.raises(MismatchError):
        check_detections(detections(FIRST, far), heatmap, boxes)
    boxes[3, 3] *= 1000
    assert check_detections(detections(FIRST, far), heatmap, boxes).boxes == 2


def test_any_of_several_tied_peaks_will_do():
    heatmap, boxes = maps()
    # Two neighbours that rounding could swap, and a plateau whose cells are all peaks.
    heatmap[0, 3, 2] = 0.49999
    check_detections(detections(FIRST, SECOND), heatmap, boxes)
    check_detections(detections(FIRST, (0.49999, 0, 20, 30, 28, 38)), heatmap, boxes)
    check_detections(detections(FIRST, SECOND, (0.01, 0, 10, 20, 18, 28)), *maps())


def test_the_last_places_may_go_to_either_of_two_equal_scores():
    heatmap, boxes = maps()
    heatmap[0, 0, 3] = 0.50001
    check_detections(detections(FIRST, SECOND), heatmap, boxes)
    check_detections(detections(FIRST, (0.50001, 0, 30, 0, 38, 8)), heatmap, boxes)


@pytest.mark.parametrize(('rows', 'message'), [
    ([FIRST, (0.5, 0, 30.1, 30, 38, 38)], 'no such detection'),
    ([FIRST, (0.501, 0, 30, 30, 38, 38)], 'no such detection'),
    ([FIRST, (np.nan, 0, 30, 30, 38, 38)], 'no such detection'),
    ([FIRST, (0.5, 0, np.nan, 30, 38, 38)], 'no such detection'),
    ([FIRST, SECOND, (0.01, 0, 10, 0, 18, 8)], 'no such detection'),  # beside a peak
    ([FIRST, (0.5, 1, 30, 30, 38, 38)], 'no such label'),
    ([FIRST, FIRST], 'comes twice'),
    ([FIRST, (0.0, 0, 0, 0, 0, 0)], 'missing: label 0, score 0.500000'),
    ([SECOND], 'missing: label 0, score 0.900000'),
])
def test_what_differs_is_named(rows, message):
    with pytest.raises(MismatchError, match=message):
        check_detections(detections(*rows), *maps())


def test_neighbours_that_predict_one_box():
    heatmap, boxes = maps()
    heatmap[0, 3, 2], boxes[3, 2] = 0.5, boxes[3, 3] + 1e-4
    both = detections(FIRST, SECOND, SECOND)
    assert check_detections(both, heatmap, boxes).boxes == 3
    with pytest.raises(MismatchError, match='comes twice'):
        check_detections(detections(FIRST, SECOND, SECOND, SECOND), heatmap, boxes)


def test_probabilities():
    expected = np.array([0.7, 0.2, 0.1])
    assert check_scores(expected + 5e-5, expected).score_difference == pytest.approx(5e-5)
    for wrong in ([0.7, 0.2005, 0.1], [0.7, np.nan, 0.1]):
        with pytest.raises(MismatchError, match=r'class 1 .* in PyTorch 0\.200000'):
            check_scores(np.array(wrong), expected)
    assert check_scores(expected + 5e-3, expected, FLOAT16).inputs == 1


def test_a_wider_window_leaves_fewer_peaks():
    heatmap, boxes = maps()
    heatmap[0, 0, 2] = 0.3
    check_detections(detections(FIRST, SECOND, (0.0, 0, 0, 0, 0, 0)), heatmap, boxes, kernel=5)
    with pytest.raises(MismatchError, match=r'0\.300000'):
        check_detections(detections(FIRST, SECOND, (0.0, 0, 0, 0, 0, 0)), heatmap, boxes)


def test_maps_that_are_not_numbers_agree_with_nothing():
    heatmap, boxes = maps()
    with pytest.raises(MismatchError):
        check_detections(detections(FIRST, SECOND), heatmap * np.nan, boxes)


def test_predict_maps_by_hand():
    class Head:
        def __call__(self, features):
            return ([torch.full((1, 1, 2, 2), 0.25)],
                    [torch.tensor([[2., 1.]]).view(1, 2, 1, 1).expand(1, 2, 2, 2)],
                    [torch.tensor([[0.5, 0.25]]).view(1, 2, 1, 1).expand(1, 2, 2, 2)])

    class Model:
        bbox_head = Head()

        def extract_feat(self, image):
            return image

    heatmap, boxes = predict_maps(Model(), torch.zeros(1, 3, 8, 8))
    assert heatmap.tolist() == [[[[0.25, 0.25], [0.25, 0.25]]]]
    # Row 1, column 0, stride 4: centre (0.5, 1.25), half size (1, 0.5).
    assert boxes[0, 1, 0].tolist() == [-2, 3, 6, 7]


def test_find_images(tmp_path):
    for name in ['b.JPG', 'a.png', 'notes.txt', *(f'c{i:02}.jpeg' for i in range(30))]:
        (tmp_path / name).touch()
    (tmp_path / 'empty').mkdir()
    found = find_images([tmp_path / 'notes.txt', tmp_path])
    assert [file.name for file in found[:4]] == ['notes.txt', 'a.png', 'b.JPG', 'c00.jpeg']
    assert len(found) == 1 + 20
    with pytest.raises(UserError, match='holds no'):
        find_images([tmp_path / 'empty'])
    with pytest.raises(UserError, match=r'none.* does not exist'):
        find_images([tmp_path / 'none'])
