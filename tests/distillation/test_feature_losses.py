"""The feature losses of detectors: their formulas in loops, and what holds for every one."""

import math
from itertools import product

import pytest
import torch
from formulas import dot, flat, linear, mean, norm, randn, soft_kl, softmax, square_distance

import mmkd  # noqa: F401
from mmkd.distillation.losses import (
    CosineLoss,
    CWDLoss,
    FGDLoss,
    MGDLoss,
    ScoreWeightedL2Loss,
)
from mmkd.registry import MODELS

BOXES = [torch.tensor([[1.0, 2.0, 9.0, 7.0], [3.0, 1.0, 12.0, 8.0]]), torch.zeros(0, 4)]
SHAPES = [(8, 16), (10, 16)]
FGD = dict(boxes=BOXES, img_shapes=SHAPES)


def _scores():
    return randn(2, 1, 3, 4, seed=2).sigmoid()


def _drawn(loss, seed=5):
    """Give all weights random values, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in loss.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator).double() / 2
    return loss


# The formulas in plain Python, on nested lists [image][channel][row][column].

def cwd_loop(student, teacher, tau):
    total = 0.0
    for ours, theirs in zip(student, teacher, strict=True):
        for s, t in zip(ours, theirs, strict=True):
            total += soft_kl(flat(s), flat(t), tau)
    return total / (len(student) * len(student[0]))


def standardised_loop(maps):
    channels = range(len(maps[0]))
    values = [flat([image[c] for image in maps]) for c in channels]
    means = [mean(v) for v in values]
    deviations = [math.sqrt(mean((x - m) ** 2 for x in v) + 1e-5)
                  for v, m in zip(values, means, strict=True)]
    return [[[[(x - means[c]) / deviations[c] for x in row] for row in image[c]]
             for c in channels] for image in maps]


def conv3x3_loop(image, weight, bias):
    height, width = len(image[0]), len(image[0][0])
    return [[[bias[o] + sum(kernel[c][dy][dx] * image[c][y + dy - 1][x + dx - 1]
                            for c, dy, dx in product(range(len(image)), range(3), range(3))
                            if 0 <= y + dy - 1 < height and 0 <= x + dx - 1 < width)
              for x in range(width)] for y in range(height)] for o, kernel in enumerate(weight)]


def mgd_loop(student, teacher, loss, masked):
    first, _, last = loss.generator
    total = 0.0
    for image, target, holes in zip(student, teacher, masked, strict=True):
        image = [[[0.0 if hole else x for x, hole in zip(row, line, strict=True)]
                  for row, line in zip(plane, holes, strict=True)] for plane in image]
        hidden = conv3x3_loop(image, first.weight.tolist(), first.bias.tolist())
        hidden = [[[max(x, 0.0) for x in row] for row in plane] for plane in hidden]
        restored = conv3x3_loop(hidden, last.weight.tolist(), last.bias.tolist())
        total += square_distance(flat(restored), flat(target))
    return loss.alpha * total / len(student)


def cosine_loop(student, teacher):
    cosines = []
    for s, t in zip(student, teacher, strict=True):
        for y, x in product(range(len(s[0])), range(len(s[0][0]))):
            a, b = [plane[y][x] for plane in s], [plane[y][x] for plane in t]
            cosines.append(dot(a, b) / norm(a) / norm(b))
    return 1 - mean(cosines)


def score_weighted_loop(student, teacher, scores):
    total = sum(q[0][y][x] * (s[c][y][x] - t[c][y][x]) ** 2
                for s, t, q in zip(student, teacher, scores, strict=True)
                for c, y, x in product(range(len(s)), range(len(s[0])), range(len(s[0][0]))))
    return total / (len(student[0]) * sum(flat(scores)) + 1e-9)


@pytest.mark.parametrize('tau', [1.0, 4.0])
def test_cwd_equals_its_formula_in_loops(tau):
    student, teacher = 3 * randn(2, 3, 3, 4), 3 * randn(2, 3, 3, 4, seed=1)
    assert CWDLoss(tau)(student, teacher).item() == pytest.approx(
        cwd_loop(student.tolist(), teacher.tolist(), tau), rel=1e-9)


def test_standardised_cwd_is_that_of_batch_normalised_maps():
    student, teacher = randn(2, 3, 3, 4), 5 * randn(2, 3, 3, 4, seed=1) + 2
    value = CWDLoss(standardise=True)(student, teacher)
    assert value.item() == pytest.approx(cwd_loop(standardised_loop(student.tolist()),
                                                  standardised_loop(teacher.tolist()), 1.0))
    torch.testing.assert_close(CWDLoss(standardise=True)(student + 7, teacher), value)


def test_mgd_equals_its_formula_in_loops():
    loss = _drawn(MGDLoss(2, alpha=3e-3, mask_ratio=0.4))
    student, teacher = randn(2, 2, 3, 4), randn(2, 2, 3, 4, seed=1)
    torch.manual_seed(3)
    masked = torch.rand(2, 1, 3, 4)[:, 0] > 0.6
    assert 0 < masked.sum() < masked.numel()
    torch.manual_seed(3)
    assert loss(student, teacher).item() == pytest.approx(
        mgd_loop(student.tolist(), teacher.tolist(), loss, masked.tolist()), rel=1e-9)


def test_cosine_equals_its_formula_in_loops():
    student, teacher = randn(2, 3, 3, 4), randn(2, 3, 3, 4, seed=1)
    assert CosineLoss()(student, teacher).item() == pytest.approx(
        cosine_loop(student.tolist(), teacher.tolist()))
    assert CosineLoss()(student, -7 * student).item() == pytest.approx(2)


def test_cosine_resamples_the_teacher_to_the_student():
    student, small = randn(1, 2, 1, 4), randn(1, 2, 1, 2, seed=1)
    left, right = small[..., :1], small[..., 1:]
    # Centres of the four cells lie at -1/4, 1/4, 3/4, 5/4 of the way between the two.
    large = torch.cat([left, 0.75 * left + 0.25 * right, 0.25 * left + 0.75 * right, right], 3)
    assert CosineLoss()(student, small).item() == pytest.approx(
        cosine_loop(student.tolist(), large.tolist()))


def test_cosine_of_zero_vectors_has_a_finite_gradient():
    student = torch.zeros(1, 2, 3, 3, requires_grad=True)
    value = CosineLoss()(student, torch.ones(1, 2, 3, 3))
    value.backward()
    assert value.item() == 1 and torch.equal(student.grad, torch.zeros_like(student))


class _OfOneLevel(ScoreWeightedL2Loss):
    """As the losses of single maps are called; ``(B, 1, H, W)`` of scores."""

    def forward(self, student, teacher, scores, image_weights=None):
        return super().forward([student], [teacher], [scores[:, 0]], image_weights)


def test_score_weighted_l2_equals_its_formula_in_loops():
    student, teacher, scores = randn(2, 3, 3, 4), randn(2, 3, 3, 4, seed=1), _scores()
    value = _OfOneLevel()(student, teacher, scores)
    expected = score_weighted_loop(student.tolist(), teacher.tolist(), scores.tolist())
    assert value.item() == pytest.approx(expected)
    other = [maps[..., :2] for maps in (student, teacher, scores)]
    both = ScoreWeightedL2Loss()(*([first, second] for first, second in zip(
        (student, teacher, scores[:, 0]), (*other[:2], other[2][:, 0]), strict=True)))
    assert both.item() == pytest.approx(
        expected + score_weighted_loop(*(maps.tolist() for maps in other)))


def test_score_weighted_l2_without_scores_is_zero():
    student = randn(1, 2, 3, 3).requires_grad_()
    value = ScoreWeightedL2Loss()([student], [randn(1, 2, 3, 3, seed=1)], [torch.zeros(1, 3, 3)])
    value.backward()
    assert value.item() == 0 and torch.equal(student.grad, torch.zeros_like(student))


# What holds for every one: how it is built, and what it takes beside the features.
CASES = {
    'CWD': (CWDLoss, {}), 'CWD standardised': (lambda: CWDLoss(2.0, standardise=True), {}),
    'MGD': (lambda: MGDLoss(4, alpha=1.0), {}),
    'FGD': (lambda: FGDLoss(4, alpha=1.0, beta=0.5, gamma=0.3, lambda_=0.1), FGD),
    'score-weighted': (_OfOneLevel, dict(scores=_scores())), 'cosine': (CosineLoss, {}),
}
every_loss = pytest.mark.parametrize('name', CASES)


def _make(name, dtype=torch.float64):
    make, facts = CASES[name]
    loss = _drawn(make()).to(dtype)
    student, teacher = randn(2, 4, 3, 4).to(dtype), randn(2, 4, 3, 4, seed=1).to(dtype)

    def call(s, t, **more):
        torch.manual_seed(0)  # for MGD's mask
        return loss(s, t, **facts, **more)
    return loss, call, student.requires_grad_(), teacher


@every_loss
def test_gradient_is_right_and_never_reaches_the_teacher(name):
    loss, call, student, teacher = _make(name)
    teacher.requires_grad_()
    value = call(student, teacher)
    assert value.shape == () and value.dtype == torch.float64 and value > 0
    value.backward()
    assert student.grad.abs().sum() > 0 and teacher.grad is None
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in loss.parameters())
    assert torch.autograd.gradcheck(lambda s: call(s, teacher.detach()), student)


@every_loss
def test_bfloat16_autocast_computes_in_float32(name):
    _, call, student, teacher = _make(name, torch.float32)
    student, teacher = student.detach().bfloat16().requires_grad_(), teacher.bfloat16()
    exact = call(student.float(), teacher.float())
    with torch.autocast('cpu', torch.bfloat16):
        value = call(student, teacher)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, exact, rtol=1e-5, atol=0)
    value.backward()
    assert student.grad.isfinite().all()


@every_loss
def test_image_weights_are_factors_of_images(name):
    _, call, student, teacher = _make(name)
    plain = call(student, teacher)
    ones, first, second, mixed = (call(student, teacher, image_weights=torch.tensor(w))
                                  for w in ([1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.3, 2.0]))
    torch.testing.assert_close(ones, plain)
    torch.testing.assert_close(mixed, 0.3 * first + 2 * second, rtol=1e-6, atol=0)


@pytest.mark.parametrize('name', [name for name in CASES if name not in ('MGD', 'FGD')])
def test_a_student_equal_to_its_teacher_has_no_loss(name):
    _, call, _, teacher = _make(name)
    assert call(teacher.clone(), teacher).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(('name', 'student', 'teacher'), [
    (name, *shapes) for name, shapes in product(CASES, [
        ((2, 4, 3, 4), (2, 5, 3, 4)), ((2, 4), (2, 4)), ((2, 4, 3, 4), (1, 4, 3, 4)),
        ((2, 4, 3, 4), (2, 4, 6, 8))])
    if name != 'cosine' or shapes[1] != (2, 4, 6, 8)])  # of that size it resamples
def test_shapes_that_do_not_fit_are_named(name, student, teacher):
    _, call, *_ = _make(name, torch.float32)
    with pytest.raises(ValueError, match=r'tap maps|ConvConnector|MLPConnector') as error:
        call(torch.zeros(student), torch.zeros(teacher))
    assert '\n' not in str(error.value)


def test_what_else_does_not_fit_is_named():
    maps = torch.zeros(2, 3, 3, 4)
    with pytest.raises(ValueError, match=r'\(2, 3, 4\), and got \(2, 3, 3, 4\).*ScoreTerm'):
        ScoreWeightedL2Loss()([maps], [maps], [maps])
    with pytest.raises(ValueError, match='one cell of one image'):
        CWDLoss(standardise=True)(maps[:1, :, :1, :1], maps[:1, :, :1, :1])
    with pytest.raises(ValueError, match='mask_ratio'):
        MGDLoss(3, mask_ratio=1.0)


@pytest.mark.parametrize('name', ['CWDLoss', 'MGDLoss', 'FGDLoss', 'ScoreWeightedL2Loss',
                                  'CosineLoss'])
def test_a_config_may_name_it(name):
    facts = dict(teacher_channels=3) if name in ('MGDLoss', 'FGDLoss') else {}
    assert MODELS.build(dict(type=name, **facts)).state_dict is not None


# Focal and global distillation: its regions by hand, its whole formula in loops.

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


def test_regions_of_fgd_by_hand():
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
    center = mean(hidden)
    deviation = math.sqrt(mean((h - center) ** 2 for h in hidden) + 1e-5)
    hidden = [max((h - center) / deviation * g + b, 0.0) for h, g, b in
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


@pytest.mark.parametrize('part', ['alpha', 'beta', 'gamma', 'lambda_', 'all'])
def test_fgd_equals_its_formula_in_loops(part):
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


def test_fgd_of_equal_features_is_zero_until_the_relations_have_learnt():
    loss, feature = FGDLoss(4).double(), randn(2, 4, 3, 4)
    assert loss(feature, feature, BOXES, SHAPES).item() == 0
    torch.nn.init.ones_(loss.teacher_relation.transform[-1].bias)
    # R_t adds 1 to every number, R_s nothing.
    assert loss(feature, feature, BOXES, SHAPES).item() == pytest.approx(5e-6 * 4 * 12)


def test_relations_of_fgd_share_nothing():
    loss = FGDLoss(4)
    ours, theirs = (set(map(id, module.parameters()))
                    for module in (loss.student_relation, loss.teacher_relation))
    assert not ours & theirs and len(ours | theirs) == len(list(loss.parameters()))
    assert all(p.requires_grad for p in loss.parameters())


def test_boxes_of_fgd_that_do_not_fit_are_named():
    maps = torch.zeros(2, 4, 3, 4)
    with pytest.raises(ValueError, match=r'each of 2 images.*1 sets of boxes and 2 sizes'):
        FGDLoss(4)(maps, maps, BOXES[:1], SHAPES)
    with pytest.raises(ValueError, match=r'\(n, 4\).*\(3, 5\)'):
        FGDLoss(4)(maps, maps, [torch.zeros(3, 5)] * 2, SHAPES)
