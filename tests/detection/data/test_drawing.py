"""What is drawn: shapes, boxes and what makes them hard."""

import cv2
import numpy as np
import pytest

from mmkd.detection.data import drawing
from mmkd.detection.data.drawing import DRAWN_CLASSES, draw_image, voc_box


def test_boxes_are_tight_around_what_is_visible():
    # The top-left pixel of an image is (1, 1) in VOC, and the last pixel belongs to the box.
    for seed in range(8):
        _, objects = draw_image(np.random.default_rng(seed), 64)
        for drawn in objects:
            pixels = [(x + 1, y + 1) for y in range(64) for x in range(64) if drawn.visible[y, x]]
            assert voc_box(drawn.visible) == (
                min(x for x, _ in pixels), min(y for _, y in pixels),
                max(x for x, _ in pixels), max(y for _, y in pixels))


def test_it_holds_what_makes_it_hard():
    objects = [drawn for seed in range(60)
               for drawn in draw_image(np.random.default_rng(seed), 64)[1]]
    assert {drawn.name for drawn in objects} == set(DRAWN_CLASSES)
    for tag in ('truncated', 'occluded', 'difficult'):
        share = np.mean([getattr(drawn, tag) for drawn in objects])
        assert 0.03 < share < 0.5, tag
    whole = [drawn.visible for drawn in objects if not drawn.truncated and not drawn.occluded]
    sides = [max(np.ptp(np.flatnonzero(mask.any(axis))) + 1 for axis in (0, 1)) for mask in whole]
    assert 6 <= min(sides) <= 10
    assert 28 <= max(sides) <= 34
    for drawn in objects:
        assert drawn.visible.sum() >= 0.35 * drawn.area, 'nothing is buried'


@pytest.mark.parametrize('name, fraction', [
    ('disc', np.pi / 4), ('square', 1.0), ('triangle', np.sqrt(27) / 16)])
def test_shapes_cover_the_area_of_their_kind(name, fraction):
    # Unturned and unstretched, next to the area of the bounding square by hand.
    polygon = drawing._outline(name)
    mask = np.zeros((400, 400), np.uint8)
    cv2.fillPoly(mask, [np.rint(polygon * 190 + 200).astype(np.int32)], 1)
    # The triangle's corners lie on the unit circle: sqrt(27) / 4 of a square of 4.
    assert mask.sum() / 380 ** 2 == pytest.approx(fraction, abs=0.02)


def test_faint_objects_hardly_stand_out():
    rng = np.random.default_rng(0)
    image = np.full((64, 64, 3), 128.0)
    mask = np.zeros((64, 64), bool)
    mask[10:30, 10:30] = True
    for faint, low, high in ((True, 8, 14), (False, 60, 150)):
        fills = [drawing._fill(rng, image, mask, 'disc', faint) for _ in range(20)]
        distances = [np.linalg.norm(fill[mask].mean(0) - 128) for fill in fills]
        # A random pattern shifts the mean by a part of its relief.
        slack = 1e-6 if faint else 25
        assert low - slack < min(distances)
        assert max(distances) < high + slack
