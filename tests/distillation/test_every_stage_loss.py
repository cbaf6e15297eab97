"""AB, FSP, FT, OFD, ReviewKD, VID: their formulas, and what holds for every one.

The losses between networks that have weights of their own or look at several stages.
"""

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from formulas import flat, mean, randn, square_distance

import mmkd  # noqa: F401
from mmkd.distillation.losses.ab import ABLoss
from mmkd.distillation.losses.fsp import FSPLoss
from mmkd.distillation.losses.ft import FTLoss
from mmkd.distillation.losses.ofd import OFDLoss
from mmkd.distillation.losses.review_kd import ReviewKDLoss
from mmkd.distillation.losses.vid import VIDLoss

# The formulas, of ``(loss, student, teacher)``: lists of what the stages give.


def _pooled(*maps):
    """Maps whose sides are multiples of those of the smallest, at its size."""
    height = min(one.shape[2] for one in maps)
    return [F.avg_pool2d(one, one.shape[2] // height) for one in maps]


def ab_loop(_, student, teacher, margin=0.7):
    total = 0.0
    for stage, maps in enumerate(zip(student, teacher, strict=True), 1 - len(student)):
        for s, t in zip(*(one.flatten().tolist() for one in _pooled(*maps)), strict=True):
            total += 2.0 ** stage * max(margin - s if t > 0 else margin + s, 0) ** 2
    return total / len(student[0])


def fsp_formula(_, student, teacher):
    total = 0.0
    for layer in range(len(student) - 1):
        flows = []
        for side in (student, teacher):
            first, second = _pooled(*side[layer:layer + 2])
            flows.append(torch.einsum('biyx,bjyx->bij', first, second) / first[0, 0].numel())
        total += (flows[0] - flows[1]).square().mean().item()
    return total


def _run(layers, feature, convolution):
    for layer in layers[::2]:
        feature = convolution(feature, layer.weight.double(), layer.bias.double(), padding=1)
        feature = torch.where(feature > 0, feature, 0.1 * feature)
    return feature


def _ft_parts(loss, student, teacher):
    """``(reconstruction, transfer)`` from the layers' weights."""
    factor = _run(loss.encoder, teacher, F.conv2d)
    rebuilt = _run(loss.decoder, factor, F.conv_transpose2d)
    own, factor = _pooled(_run(loss.translator, student, F.conv2d), factor)
    transfer = 0.0
    for a, b in zip(own.flatten(1), factor.flatten(1), strict=True):
        transfer += (a / (a * a).sum().sqrt() - b / (b * b).sum().sqrt()).abs().sum()
    return ((rebuilt - teacher) ** 2).sum() / teacher.numel(), transfer / own.numel()


def ft_formula(loss, student, teacher):
    reconstruction, transfer = _ft_parts(loss, *student, *teacher)
    return (reconstruction + 30 * transfer).item()


def _margin(values):
    below = [value for value in values if value < 0]
    return mean(below) if below else 0.0


def ofd_loop(_, student, teacher):
    total = 0.0
    for stage, maps in enumerate(zip(student, teacher, strict=True), 1 - len(student)):
        for c, (s, t) in product(range(maps[0].shape[1]), [_pooled(*maps)]):
            margin = _margin(maps[1][:, c].flatten().tolist())  # before pooling
            for own, other in zip(s[:, c].flatten().tolist(), t[:, c].flatten().tolist(),
                                  strict=True):
                target = max(other, margin)
                total += 0 if own <= target <= 0 else 2.0 ** stage * (own - target) ** 2
    return total / len(student[0])


LEVELS = {(8, 8): (4, 2, 1), (4, 8): (2, 1), (4, 4): (2, 1), (2, 2): (1,), (1, 1): (), (): ()}
"""Of the hierarchical context loss behind the full map, by the map's size."""


def _grid(plane, size):
    """Mean over a ``size`` by ``size`` grid of a plane whose sides it divides."""
    rows, columns = len(plane) // size, len(plane[0]) // size
    return [[mean(plane[r * rows + y][c * columns + x]
                  for y, x in product(range(rows), range(columns)))
             for c in range(size)] for r in range(size)]


def review_loop(_, student, teacher):
    total = 0.0
    for maps in zip(student, teacher, strict=True):
        sizes = LEVELS[tuple(maps[0].shape[2:])]
        planes = [one.flatten(0, 1).tolist() for one in maps]
        pairs = [planes, *([[_grid(p, size) for p in side] for side in planes] for size in sizes)]
        parts = [square_distance(flat(s), flat(t)) / len(flat(s)) for s, t in pairs]
        weights = [2.0 ** -k for k in range(len(parts))]
        total += sum(w * x for w, x in zip(weights, parts, strict=True)) / sum(weights)
    return total


def vid_loop(loss, student, teacher):
    weights = [layer.weight[:, :, 0, 0].tolist() for layer in loss.regressor[::2]]
    variances = [math.log(1 + math.exp(alpha)) + 1e-5 for alpha in loss.alpha.tolist()]
    terms = []
    for cell, target in zip(*(one.movedim(1, -1).flatten(0, 2).tolist()
                              for one in _pooled(*student, *teacher)), strict=True):
        for depth, matrix in enumerate(weights):
            cell = [max(x, 0) for x in cell] if depth else cell
            cell = [sum(w * x for w, x in zip(row, cell, strict=True)) for row in matrix]
        terms += [(t - mu) ** 2 / (2 * v) + math.log(v) / 2
                  for t, mu, v in zip(target, cell, variances, strict=True)]
    return mean(terms)


STAGES = [(2, 2, 4, 3), (2, 3, 4, 3), (2, 1, 4, 3)]
SEVERAL = [(2, 3, 8, 8), (2, 3, 4, 8), (2, 3, 4, 4), (2, 4, 2, 2), (2, 3, 1, 1), (2, 5)]
# name: how it is built, formula, shapes of the student and of the teacher
CASES = {
    'AB': (lambda: ABLoss(margin=0.7), ab_loop, STAGES, STAGES),
    'FSP': (FSPLoss, fsp_formula, STAGES, STAGES),
    'FT': (lambda: FTLoss(2, 4, transfer_weight=30.0), ft_formula, [(2, 2, 3, 4)], [(2, 4, 3, 4)]),
    'OFD': (lambda: OFDLoss([2, 3, 1]), ofd_loop, STAGES, STAGES),
    'ReviewKD': (ReviewKDLoss, review_loop, SEVERAL, SEVERAL),
    'VID': (lambda: VIDLoss(2, 3), vid_loop, [(2, 2, 2, 3)], [(2, 3, 2, 3)]),
}
every_loss = pytest.mark.parametrize('name', CASES)


def _drawn(shapes, seed):
    return [randn(*shape, seed=seed + place) for place, shape in enumerate(shapes)]


def _make(name):
    """A loss with drawn weights, student and teacher."""
    make, _, student, teacher = CASES[name]
    loss = make().double()
    for seed, parameter in enumerate(loss.parameters()):
        parameter.data = randn(*parameter.shape, seed=seed) / 2
    return loss, _drawn(student, 0), _drawn(teacher, 10)


def _call(loss, student, teacher, **facts):
    if getattr(loss, 'multi_level', False):
        return loss(student, teacher, **facts)
    return loss(*student, *teacher, **facts)


@every_loss
def test_equals_its_formula(name):
    loss, student, teacher = _make(name)
    value = _call(loss, student, teacher)
    assert value.shape == () and value.dtype == torch.float64
    assert value.item() == pytest.approx(CASES[name][1](loss, student, teacher))


@pytest.mark.parametrize(('ours', 'theirs'), [((4, 4, 4), (2, 2, 2)), ((2, 2, 2), (4, 4, 4)),
                                              ((8, 4, 2), (4, 4, 4))])
@pytest.mark.parametrize('name', ['AB', 'FSP', 'FT', 'OFD', 'VID'])
def test_the_larger_map_is_pooled(name, ours, theirs):
    loss, *features = _make(name)
    student, teacher = (
        _drawn([(*f.shape[:2], size, size) for f, size in zip(side, sizes, strict=False)], seed)
        for side, sizes, seed in zip(features, (ours, theirs), (0, 10), strict=True))
    assert _call(loss, student, teacher).item() == pytest.approx(
        CASES[name][1](loss, student, teacher))


@every_loss
def test_gradient_is_right_and_never_reaches_the_teacher(name):
    loss, student, teacher = _make(name)
    names = [key for key, _ in loss.named_parameters()]

    def call(*values):
        given = dict(zip(names, values[len(student):], strict=False))
        multi_level = getattr(loss, 'multi_level', False)
        own, other = (values[:len(student)], fixed) if multi_level else (values[0], fixed[0])
        return torch.func.functional_call(loss, given, (own, other))

    for feature in (*student, *teacher):
        feature.requires_grad_()
    _call(loss, student, teacher).backward()
    assert all(one.grad.abs().sum() > 0 for one in (*student, *loss.parameters()))
    assert all(one.grad is None for one in teacher)
    fixed = [one.detach() for one in teacher]
    learnt = [] if name == 'FT' else loss.parameters()  # FT keeps two trainings apart, see below
    assert torch.autograd.gradcheck(call, (*student, *learnt))


@pytest.mark.parametrize('autocast', [True, False])
@every_loss
def test_bfloat16_is_computed_in_float32(name, autocast):
    loss, *features = _make(name)
    loss, (student, teacher) = loss.float(), ([f.bfloat16() for f in side] for side in features)
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        value = _call(loss, student, teacher)
    assert value.dtype == torch.float32
    student, teacher = ([f.double() for f in side] for side in (student, teacher))
    assert value.item() == pytest.approx(CASES[name][1](loss, student, teacher), rel=1e-5)


@pytest.mark.parametrize(('own', 'other'), [('zero', 'zero'), ('zero', 'drawn'), ('drawn', 'zero'),
                                            ('the same', 'drawn')])
@every_loss
def test_corners(name, own, other):
    loss, student, teacher = _make(name)
    teacher = [0 * f for f in teacher] if other == 'zero' else teacher
    if own == 'zero':
        student = [0 * f for f in student]
    elif own == 'the same' and teacher[0].shape == student[0].shape:
        student = [f.clone() for f in teacher]
    for feature in student:
        feature.requires_grad_()
    value = _call(loss, student, teacher)
    value.backward()
    assert value.item() == pytest.approx(CASES[name][1](loss, student, teacher))
    assert all(one.grad.isfinite().all() for one in (*student, *loss.parameters()))


# What is said of one alone.

def test_ab_does_not_ask_how_far_the_teacher_is():
    teacher = [randn(2, 3, 4, 4)]
    assert ABLoss()([teacher[0].sign() * 1.5], teacher).item() == 0
    assert ABLoss()([teacher[0].sign() * 0.5], teacher).item() == pytest.approx(0.25 * 48)
    student = [randn(2, 3, 4, 4, seed=1)]
    torch.testing.assert_close(ABLoss()(student, teacher), ABLoss()(student, [100 * teacher[0]]))


def test_fsp_forgets_places():
    teacher = _drawn(STAGES, 0)
    cells = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    moved = [f.flatten(2)[..., cells].reshape(f.shape) for f in teacher]
    assert FSPLoss()(moved, teacher).item() == pytest.approx(0, abs=1e-25)


def test_the_paraphraser_of_ft_learns_from_the_teacher_alone():
    loss = FTLoss(2, 4).double()
    student, teacher = randn(2, 2, 3, 4).requires_grad_(), randn(2, 4, 3, 4, seed=1)
    reconstruction, transfer = _ft_parts(loss, student, teacher)
    paraphraser = [*loss.encoder.parameters(), *loss.decoder.parameters()]
    own = [student, *loss.translator.parameters()]
    expected = [*torch.autograd.grad(reconstruction, paraphraser, retain_graph=True),
                *torch.autograd.grad(0.25 * 200 * transfer, own)]
    value = loss(student, teacher, warmup=0.25)
    torch.testing.assert_close(value, reconstruction + 0.25 * 200 * transfer)
    value.backward()
    for parameter, gradient in zip([*paraphraser, *own], expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
        assert gradient.abs().sum() > 0


def test_factors_of_half_the_teachers_channels_by_three_layers():
    channels = {name: [(layer.in_channels, layer.out_channels) for layer in part[::2]]
                for name, part in FTLoss(3, 8).named_children()}
    assert channels == dict(encoder=[(8, 8), (8, 4), (4, 4)], decoder=[(4, 4), (4, 8), (8, 8)],
                            translator=[(3, 3), (3, 4), (4, 4)])


def test_a_perfect_translation_has_no_transfer_loss():
    loss, feature = FTLoss(4, 4).double(), randn(2, 4, 3, 3)
    loss.translator.load_state_dict(loss.encoder.state_dict())
    reconstruction, _ = _ft_parts(loss, feature, feature)
    assert loss(feature, feature).item() == pytest.approx(reconstruction.item())


def test_margins_are_the_mean_of_all_negative_values_seen():
    loss = OFDLoss([2, 1])
    batches = [[randn(b, 2, 3, 3, seed=b) - 0.3, randn(b, 1, 2, 2, seed=b) + 9] for b in (1, 4)]
    for batch in batches:
        loss(batch, batch)
    for c in range(2):
        seen = torch.cat([batch[0][:, c].flatten() for batch in batches]).tolist()
        assert loss.margins()[0][c].item() == pytest.approx(_margin(seen), rel=1e-12)
    assert loss.margins()[1].tolist() == [0.0], 'never negative'
    before = loss.margins()
    loss.eval()([f - 5 for f in batches[0]], [f - 5 for f in batches[0]])
    torch.testing.assert_close(loss.margins(), before, rtol=0, atol=0)
    restored = OFDLoss([2, 1])
    restored.load_state_dict(loss.state_dict())
    torch.testing.assert_close(restored.margins(), before, rtol=0, atol=0)


def test_margins_of_a_normal_feature_are_the_closed_form_of_the_paper():
    center, deviation = 0.4, 1.5
    feature = randn(200, 1, 40, 40) * deviation + center
    loss = OFDLoss([1])
    loss([feature], [feature])
    density = math.exp(-(center / deviation) ** 2 / 2) / math.sqrt(2 * math.pi)
    below = 0.5 * (1 - math.erf(center / deviation / math.sqrt(2)))
    assert loss.margins()[0].item() == pytest.approx(center - deviation * density / below, abs=0.01)


def test_image_weights_of_review_kd():
    student, teacher = ([randn(2, 3, 8, 8, seed=s), randn(2, 5, seed=s)] for s in (0, 1))
    plain, ones, first, second = (
        ReviewKDLoss()(student, teacher, image_weights=w and torch.tensor(w))
        for w in (None, [1.0, 1.0], [2.0, 0.0], [0.0, 2.0]))
    torch.testing.assert_close(ones, plain)
    torch.testing.assert_close((first + second) / 2, plain)
    alone = ReviewKDLoss()([s[:1] for s in student], [t[:1] for t in teacher])
    torch.testing.assert_close(first, alone)


@pytest.mark.parametrize(('options', 'variance'), [({}, 5), (dict(init_variance=1.0), 1)])
def test_vid_begins_with_the_variance_asked_for(options, variance):
    """A mean of 0 and teachers of 2."""
    value = VIDLoss(2, 3, **options)(torch.zeros(1, 2, 1, 1), torch.full((1, 3, 1, 1), 2.0))
    assert value.item() == pytest.approx(4 / (2 * variance) + math.log(variance) / 2)


MAP, VECTOR = (2, 3, 4, 4), (2, 3)


@pytest.mark.parametrize(('loss', 'student', 'teacher', 'message'), [
    (ABLoss(), [VECTOR], [VECTOR], r'compares maps .*\[\(2, 3\)\] of the student'),
    (ABLoss(), [MAP], [(2, 2, 4, 4)],
     r'\[\(2, 3, 4, 4\)\] .*\[\(2, 2, 4, 4\)\] .*OFDConnector'),
    (FSPLoss(), [MAP], [MAP], r'two layers or more .*\[\(2, 3, 4, 4\)\]: tap='),
    (FSPLoss(), [VECTOR] * 2, [VECTOR] * 2, r'\[\(2, 3\), \(2, 3\)\]'),
    (FSPLoss(), [MAP] * 2, [MAP, (2, 5, 4, 4)], r'equal channels .*AlignConnector'),
    (FSPLoss(), [MAP] * 2, [(1, 3, 4, 4)] * 2, r'equal channels'),
    (FTLoss(3, 4), [VECTOR], [(2, 4)], r'\(2, 3\).*tap maps'),
    (OFDLoss([3]), [VECTOR], [VECTOR], r'compares maps .* \[\(2, 3\), \(2, 3\)\]: tap maps'),
    (OFDLoss([2]), [MAP], [(2, 2, 4, 4)], r'built for \[2\].*\[3\] from the student.*OFDConnector'),
    (ReviewKDLoss(), [MAP], [(2, 3, 2, 2)], r'\(2, 3, 4, 4\).*\(2, 3, 2, 2\).*ReviewConnector'),
    (ReviewKDLoss(), [MAP], [MAP] * 2, 'ReviewConnector'),
    (VIDLoss(3, 3), [VECTOR], [VECTOR], r'\(2, 3\)')])
def test_features_that_do_not_fit_are_named(loss, student, teacher, message):
    with pytest.raises(ValueError, match=message) as error:
        _call(loss, [torch.ones(s) for s in student], [torch.ones(t) for t in teacher])
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(('build', 'message'), [
    (lambda: ABLoss(margin=0), 'margin above 0, not 0'),
    (lambda: FTLoss(2, 4, rate=0.1), r'rate 0\.1, which leaves no channel of the teacher'),
    (lambda: VIDLoss(2, 3, init_variance=0), 'init_variance above')])
def test_options_out_of_range(build, message):
    with pytest.raises(ValueError, match=message):
        build()
