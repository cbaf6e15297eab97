"""Focal and global distillation: its regions by hand, its whole formula in loops."""

import math
from itertools import product

import pytest
import torch
from formulas import dot, linear, randn, softmax

from mmkd.distillation.losses import FGDLoss

CELLS = list(product(range(3), range(4)))


def _one_cell(loss, boxes, img_shape, y, x, size):
    """The loss of a student that differs from an even teacher by 1 in one cell of one channel."""
    teacher = torch.ones(1, 1, *size, dtype=torch.float64)
    student = teacher.clone()
    student[0, 0, y, x] += 1
    return loss(student, teacher, [boxes], [img_shape]).item()


def _region(alpha, beta, boxes, img_shape, size):
    loss = FGDLoss(1, alpha=alpha, beta=beta, gamma=0.0, lambda_=0.0).double()
    return [[_one_cell(loss, boxes, img_shape, y, x, size) for x in range(size[1])]
            for y in range(size[0])]


def test_regions_by_hand():
    """8 x 12 pixels on 4 x 6 cells."""
    boxes = torch.tensor([[1.0, 2.0, 5.0, 3.9],    # x 0.5 .. 2.5 -> 0 .. 3, y 1 .. 1.95 -> 1 .. 2
                          [5.0, 2.0, 6.0, 4.0],    # x 2.5 .. 3 -> 2 .. 3, y 1 .. 2
                          [10.0, 6.5, 12.0, 8.0]])  # x 5 .. 6, of which 6 lies outside, y 3 .. 4
    a, b, c = 1 / 8, 1 / 4, 1 / 4
    expected = [[0, 0, 0, 0, 0, 0], [a, a, b, b, 0, 0], [a, a, b, b, 0, 0], [0, 0, 0, 0, 0, c]]
    size, image = (4, 6), (8, 12)
    assert _region(1.0, 0.0, boxes, image, size) == [pytest.approx(row) for row in expected]
    free = sum(value == 0 for row in expected for value in row)
    assert _region(0.0, 1.0, boxes, image, size) == [
        pytest.approx([0 if value else 1 / free for value in row]) for row in expected]


def test_an_image_without_boxes_is_background_and_one_full_of_them_has_none():
    size, image = (2, 3), (8, 12)
    nothing, all_of_it = torch.zeros(0, 4), torch.tensor([[0.0, 0.0, 12.0, 8.0]])
    assert _region(1.0, 0.0, nothing, image, size) == [[0.0] * 3] * 2
    assert _region(0.0, 1.0, nothing, image, size) == [pytest.approx([1 / 6] * 3)] * 2
    assert _region(0.0, 1.0, all_of_it, image, size) == [[0.0] * 3] * 2


def test_a_box_that_begins_outside_covers_what_is_inside():
    boxes = torch.tensor([[-6.0, -6.0, 2.0, 2.0]])  # x and y -3 .. 1: five cells by five
    assert _region(1.0, 0.0, boxes, (8, 8), (4, 4)) == [
        pytest.approx([1 / 25, 1 / 25, 0, 0])] * 2 + [[0.0] * 4] * 2


# The formula in plain Python.

def _attentions(image, temperature):
    channels = range(len(image))
    spatial = softmax([sum(abs(image[c][y][x]) for c in channels) / len(image)
                        for y, x in CELLS], temperature)
    channel = softmax([sum(abs(image[c][y][x]) for y, x in CELLS) / len(CELLS)
                        for c in channels], temperature)
    return ({cell: len(CELLS) * value for cell, value in zip(CELLS, spatial, strict=True)},
            [len(image) * value for value in channel])


def _masks(boxes, img_height, img_width):
    foreground = dict.fromkeys(CELLS, 0.0)
    for x0, y0, x1, y1 in boxes:
        left, right = math.floor(x0 / img_width * 4), math.ceil(x1 / img_width * 4)
        top, bottom = math.floor(y0 / img_height * 3), math.ceil(y1 / img_height * 3)
        for y, x in CELLS:
            if top <= y <= bottom and left <= x <= right:
                area = (bottom - top + 1) * (right - left + 1)
                foreground[y, x] = max(foreground[y, x], 1 / area)
    empty = [cell for cell in CELLS if foreground[cell] == 0]
    return foreground, {cell: 1 / len(empty) if cell in empty else 0.0 for cell in CELLS}


def _relation(module, image):
    attend = module.attend.weight.flatten().tolist()
    shares = softmax([dot(attend, [plane[y][x] for plane in image]) for y, x in CELLS])
    context = [sum(share * plane[y][x] for share, (y, x) in zip(shares, CELLS, strict=True))
               for plane in image]
    first, norm, _, last = module.transform
    hidden = linear(first, context)
    mean = sum(hidden) / len(hidden)
    deviation = math.sqrt(sum((h - mean) ** 2 for h in hidden) / len(hidden) + 1e-5)
    hidden = [max((h - mean) / deviation * g + b, 0.0) for h, g, b in
              zip(hidden, norm.weight.tolist(), norm.bias.tolist(), strict=True)]
    return {(c, y, x): image[c][y][x] + added
            for c, added in enumerate(linear(last, hidden)) for y, x in CELLS}


def fgd_loop(loss, student, teacher, boxes, img_shapes):
    total = 0.0
    for s, t, own, shape in zip(student, teacher, boxes, img_shapes, strict=True):
        (spatial, channel), (spatial_s, channel_s) = (_attentions(image, loss.temperature)
                                                      for image in (t, s))
        foreground, background = _masks(own, *shape)
        for c, (y, x) in product(range(len(s)), CELLS):
            weight = loss.alpha * foreground[y, x] + loss.beta * background[y, x]
            total += weight * spatial[y, x] * channel[c] * (t[c][y][x] - s[c][y][x]) ** 2
        total += loss.gamma * sum(abs(spatial_s[cell] - spatial[cell]) for cell in CELLS)
        total += loss.gamma * sum(abs(a - b) for a, b in zip(channel_s, channel, strict=True))
        ours, theirs = _relation(loss.student_relation, s), _relation(loss.teacher_relation, t)
        total += loss.lambda_ * sum((theirs[key] - ours[key]) ** 2 for key in ours)
    return total / len(student)


BOXES = [torch.tensor([[1.0, 2.0, 9.0, 7.0], [3.0, 1.0, 12.0, 8.0]]), torch.zeros(0, 4)]
SHAPES = [(8, 16), (10, 16)]


@pytest.mark.parametrize('part', ['alpha', 'beta', 'gamma', 'lambda_', 'all'])
def test_equals_its_formula_in_loops(part):
    weights = dict.fromkeys(['alpha', 'beta', 'gamma', 'lambda_'], 0.0) | {part: 1.0}
    if part == 'all':
        weights = dict(alpha=0.2, beta=0.3, gamma=0.4, lambda_=0.5)
    loss = FGDLoss(4, temperature=0.8, **weights).double()
    for seed, parameter in enumerate(loss.parameters()):
        parameter.data = randn(*parameter.shape, seed=seed)
    student, teacher = randn(2, 4, 3, 4), randn(2, 4, 3, 4, seed=1)
    expected = fgd_loop(loss, student.tolist(), teacher.tolist(),
                        [b.tolist() for b in BOXES], SHAPES)
    assert expected > 0
    assert loss(student, teacher, BOXES, SHAPES).item() == pytest.approx(expected, rel=1e-9)


def test_a_student_equal_to_its_teacher_has_no_loss_until_the_relations_have_learnt():
    loss, feature = FGDLoss(4).double(), randn(2, 4, 3, 4)
    assert loss(feature, feature, BOXES, SHAPES).item() == 0
    torch.nn.init.ones_(loss.teacher_relation.transform[-1].bias)
    # R_t adds 1 to every number, R_s nothing.
    assert loss(feature, feature, BOXES, SHAPES).item() == pytest.approx(5e-6 * 4 * 12)


def test_relations_of_student_and_teacher_share_nothing():
    loss = FGDLoss(4)
    ours, theirs = (set(map(id, module.parameters()))
                    for module in (loss.student_relation, loss.teacher_relation))
    assert not ours & theirs and len(ours | theirs) == len(list(loss.parameters()))
    assert all(p.requires_grad for p in loss.parameters())


def test_boxes_that_do_not_fit_are_named():
    maps = torch.zeros(2, 4, 3, 4)
    with pytest.raises(ValueError, match=r'each of 2 images.*1 sets of boxes and 2 sizes'):
        FGDLoss(4)(maps, maps, BOXES[:1], SHAPES)
    with pytest.raises(ValueError, match=r'\(n, 4\).*\(3, 5\)'):
        FGDLoss(4)(maps, maps, [torch.zeros(3, 5)] * 2, SHAPES)
