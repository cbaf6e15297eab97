"""Several teachers' maps joined, and brought to the student's classes and stride."""

import pytest
import torch

from mmkd.detection.joining import checked_rule, joined
from mmkd.detection.teacher_maps import Maps, class_index, resampled
from mmkd.errors import UserError


def _maps(heat, size, offset):
    """One image, two classes, a row of two cells."""
    return Maps(torch.tensor(heat).view(1, 2, 1, 2), torch.tensor(size).view(1, 2, 1, 2),
                torch.tensor(offset).view(1, 2, 1, 2))


A = _maps([0.8, 0.1, 0.2, 0.3], [4.0, 5.0, 6.0, 7.0], [0.0, 0.1, 0.2, 0.3])
B = _maps([0.4, 0.6, 0.2, 0.1], [8.0, 9.0, 2.0, 1.0], [0.5, 0.6, 0.7, 0.8])


def test_mean_by_hand():
    maps = joined([A, B], [0.75, 0.25], 'mean')
    torch.testing.assert_close(maps.heatmap.flatten(), torch.tensor([0.7, 0.225, 0.2, 0.25]))
    torch.testing.assert_close(maps.wh.flatten(), torch.tensor([5.0, 6.0, 5.0, 5.5]))


def test_max_takes_sizes_from_the_most_confident_teacher():
    maps = joined([A, B], [0.5, 0.5], 'max')
    torch.testing.assert_close(maps.heatmap.flatten(), torch.tensor([0.8, 0.6, 0.2, 0.3]))
    # Confidence A (0.8, 0.3), B (0.4, 0.6): the first cell is A's, the second B's.
    assert maps.wh.flatten().tolist() == [4.0, 9.0, 6.0, 1.0]
    torch.testing.assert_close(maps.offset.flatten(), torch.tensor([0.0, 0.6, 0.2, 0.8]))


def test_confidence_by_hand():
    maps = joined([A, B], [0.5, 0.5], 'confidence')
    first, second = (0.8 / 1.2, 0.4 / 1.2), (0.3 / 0.9, 0.6 / 0.9)
    expected = [4 * first[0] + 8 * first[1], 5 * second[0] + 9 * second[1],
                6 * first[0] + 2 * first[1], 7 * second[0] + 1 * second[1]]
    torch.testing.assert_close(maps.wh.flatten(), torch.tensor(expected))


@pytest.mark.parametrize('rule', ['mean', 'max', 'confidence'])
def test_one_teacher_is_itself_under_every_rule(rule):
    for got, expected in zip(joined([A], [1.0], rule), A, strict=True):
        torch.testing.assert_close(got, expected)


def test_confidence_where_no_teacher_sees_anything_is_finite():
    nothing = _maps([0.0] * 4, [1.0] * 4, [0.0] * 4)
    assert all(m.isfinite().all() for m in joined([nothing, nothing], [0.5, 0.5], 'confidence'))


def test_a_misspelt_rule():
    with pytest.raises(UserError, match=r"joint='maen'.*Did you mean 'mean'\?"):
        checked_rule('maen', 'distill_wh')


def test_classes_are_found_by_name():
    assert class_index(('cat', 'dog'), ('cat', 'dog'), 't') is None
    assert class_index(('cat', 'dog'), ('dog', 'bird', 'cat'), 't') == [2, 0]
    assert class_index(('cat', 'dog'), None, 't') is None


def test_a_teacher_that_lacks_a_class_is_refused_with_both_lists():
    with pytest.raises(UserError, match=r"\['cat', 'dog'\], the teacher \['cat', 'cow'\]"):
        class_index(('cat', 'dog'), ('cat', 'cow'), 't')


def _centres(maps, stride):
    """Absolute centre and size in pixels that each cell stands for."""
    height, width = maps.wh.shape[-2:]
    for y in range(height):
        for x in range(width):
            yield ((y, x), (x + maps.offset[0, 0, y, x].item()) * stride,
                   (y + maps.offset[0, 1, y, x].item()) * stride,
                   maps.wh[0, 0, y, x].item() * stride, maps.wh[0, 1, y, x].item() * stride)


@pytest.mark.parametrize('teacher_stride, student_stride', [(8, 4), (16, 4), (4, 8)])
def test_resampled_cells_stand_for_the_same_boxes(teacher_stride, student_stride):
    generator = torch.Generator().manual_seed(0)
    old, new = 32 // teacher_stride, 32 // student_stride
    maps = Maps(*(torch.rand(1, c, old, old, generator=generator) for c in (2, 2, 2)))
    boxes = {cell: box for cell, *box in _centres(maps, teacher_stride)}
    got = resampled(maps, (new, new))
    for (y, x), *box in _centres(got, student_stride):
        centre_y, centre_x = (y + 0.5) * student_stride, (x + 0.5) * student_stride
        cell = (int(centre_y // teacher_stride), int(centre_x // teacher_stride))
        assert box == pytest.approx(boxes[cell], abs=1e-4)


def test_a_finer_teacher_keeps_its_peaks():
    heat = torch.zeros(1, 1, 4, 4)
    heat[0, 0, 1, 2] = 0.9
    got = resampled(Maps(heat, torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)), (2, 2))
    torch.testing.assert_close(got.heatmap[0, 0], torch.tensor([[0.0, 0.9], [0.0, 0.0]]))


def test_the_same_stride_changes_nothing():
    assert resampled(A, (1, 2)) is A
