"""Every parameter-free classification loss: its formula in loops, gradient, precision, corners."""

import inspect
import math
from itertools import product

import pytest
import torch
from formulas import (
    CORNERS,
    assert_float32_under_autocast,
    dkd,
    dot,
    flat,
    mean,
    norm,
    randn,
    soft_kl,
    softmax,
    unit,
)

import mmkd  # noqa: F401
from mmkd.distillation.losses.attention_transfer import AttentionTransferLoss
from mmkd.distillation.losses.cc import CCLoss
from mmkd.distillation.losses.dist import DISTLoss
from mmkd.distillation.losses.dkd import DKDLoss
from mmkd.distillation.losses.fitnet import FitNetLoss
from mmkd.distillation.losses.kd import KDLoss
from mmkd.distillation.losses.nst import NSTLoss
from mmkd.distillation.losses.pkt import PKTLoss
from mmkd.distillation.losses.rkd import RKDLoss
from mmkd.distillation.losses.similarity_preserving import SimilarityPreservingLoss

LABELS = torch.tensor([2, 0, 2, 1])


# The formulas in plain Python, on nested lists.

def _huber(x):
    return x * x / 2 if abs(x) < 1 else abs(x) - 0.5


def kd_loop(student, teacher, temperature=4):
    return mean(soft_kl(s, t, temperature) for s, t in zip(student, teacher, strict=True))


def fitnet_loop(student, teacher):
    return mean((s - t) ** 2 for s, t in zip(flat(student), flat(teacher), strict=True))


def _attention_map(sample, p):
    height, width = len(sample[0]), len(sample[0][0])
    return unit([mean(abs(channel[y][x]) ** p for channel in sample)
                  for y in range(height) for x in range(width)])


def attention_loop(student, teacher, p=2):
    return mean((a - b) ** 2 for s, t in zip(student, teacher, strict=True)
                 for a, b in zip(_attention_map(s, p), _attention_map(t, p), strict=True))


def _relations(points):
    points = [flat(point) for point in points]
    n = range(len(points))
    minus = {(i, j): [a - b for a, b in zip(points[i], points[j], strict=True)]
             for i, j in product(n, n)}
    distances = {key: norm(vector) for key, vector in minus.items()}
    positive = [d for d in distances.values() if d > 0]
    normalised = [d / mean(positive) for d in distances.values()]
    return normalised, [dot(unit(minus[i, j]), unit(minus[k, j]))
                        for i, j, k in product(n, n, n)]


def rkd_loop(student, teacher, distance_weight=25, angle_weight=50):
    distance, angle = (mean(_huber(a - b) for a, b in zip(own, his, strict=True))
                       for own, his in zip(_relations(student), _relations(teacher), strict=True))
    return distance_weight * distance + angle_weight * angle


def dkd_loop(student, teacher, **settings):
    return dkd(student, teacher, LABELS.tolist(), **dict(beta=8, temperature=4) | settings)


def _gram(samples):
    samples = [flat(sample) for sample in samples]
    return [unit([dot(a, b) for b in samples]) for a in samples]


def similarity_loop(student, teacher):
    return sum((a - b) ** 2 for a, b in zip(flat(_gram(student)), flat(_gram(teacher)),
                                            strict=True)) / len(student) ** 2


def nst_loop(student, teacher):
    def kernel(a, b):
        return mean(dot(x, y) ** 2 for x, y in product(a, b))

    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        s, t = ([unit(flat(channel)) for channel in sample] for sample in (s, t))
        total += kernel(s, s) + kernel(t, t) - 2 * kernel(s, t)
    return total / len(student)


def _gaussian(samples, gamma=0.4):
    """To second order, of vectors of length 1."""
    samples = [unit(flat(sample)) for sample in samples]
    cosines = [dot(a, b) for a, b in product(samples, samples)]
    return [math.exp(-2 * gamma) * (1 + 2 * gamma * c + 2 * (gamma * c) ** 2) for c in cosines]


def cc_loop(student, teacher):
    return mean((a - b) ** 2 for a, b in zip(_gaussian(student), _gaussian(teacher), strict=True))


def _neighbours(samples):
    samples = [unit(flat(sample)) for sample in samples]
    kernel = [[(dot(a, b) + 1) / 2 for b in samples] for a in samples]
    return [k / sum(row) for row in kernel for k in row]


def pkt_loop(student, teacher):
    return mean(t * math.log((t + 1e-7) / (s + 1e-7))
                 for s, t in zip(_neighbours(student), _neighbours(teacher), strict=True))


def _pearson(a, b):
    a, b = [x - mean(a) for x in a], [x - mean(b) for x in b]
    return dot(a, b) / (norm(a) * norm(b) + 1e-8)


def dist_loop(student, teacher, beta=1, gamma=1, temperature=1):
    student, teacher = ([softmax(row, temperature) for row in side] for side in (student, teacher))
    inter = mean(1 - _pearson(s, t) for s, t in zip(student, teacher, strict=True))
    intra = mean(1 - _pearson(s, t) for s, t in zip(zip(*student, strict=True),
                                                     zip(*teacher, strict=True), strict=True))
    return temperature ** 2 * (beta * inter + gamma * intra)


# name: loss, loop, shape of the student, shape of the teacher
CASES = {
    'KD': (KDLoss(), kd_loop, (4, 5), (4, 5)),
    'FitNet': (FitNetLoss(), fitnet_loop, (4, 2, 3, 2), (4, 2, 3, 2)),
    'AT': (AttentionTransferLoss(), attention_loop, (4, 2, 3, 2), (4, 5, 3, 2)),
    'RKD': (RKDLoss(), rkd_loop, (4, 3), (4, 5)),
    'RKD of maps': (RKDLoss(), rkd_loop, (4, 2, 2, 1), (4, 3, 1, 2)),
    'DKD': (DKDLoss(), dkd_loop, (4, 5), (4, 5)),
    'SPKD': (SimilarityPreservingLoss(), similarity_loop, (4, 2, 2, 2), (4, 3, 1, 1)),
    'NST': (NSTLoss(), nst_loop, (4, 2, 3, 2), (4, 3, 3, 2)),
    'PKT': (PKTLoss(), pkt_loop, (4, 3), (4, 5)),
    'CC': (CCLoss(), cc_loop, (4, 3), (4, 5)),
    'DIST': (DISTLoss(), dist_loop, (4, 5), (4, 5)),
}
# With other settings: loss, loop, settings, the case above whose shapes it has.
SETTINGS = [
    (KDLoss, kd_loop, dict(temperature=2), 'KD'),
    (AttentionTransferLoss, attention_loop, dict(p=1), 'AT'),
    (AttentionTransferLoss, attention_loop, dict(p=3), 'AT'),
    (RKDLoss, rkd_loop, dict(distance_weight=2, angle_weight=0), 'RKD'),
    (RKDLoss, rkd_loop, dict(distance_weight=0, angle_weight=3), 'RKD'),
    (DKDLoss, dkd_loop, dict(alpha=2, beta=3, temperature=1), 'DKD'),
    (DISTLoss, dist_loop, dict(beta=3, gamma=5, temperature=2), 'DIST'),
]
LOGITS = ['KD', 'DKD', 'DIST']
every_loss = pytest.mark.parametrize('name', CASES)


def _make(name, dtype=torch.float64):
    _, _, student, teacher = CASES[name]
    return randn(*student, dtype=dtype).requires_grad_(), randn(*teacher, seed=1, dtype=dtype)


def _call(name, student, teacher):
    loss = CASES[name][0] if isinstance(name, str) else name
    if 'labels' in inspect.signature(loss.forward).parameters:
        return loss(student, teacher, labels=LABELS[:len(student)])
    return loss(student, teacher)


@every_loss
def test_equals_its_formula_in_loops(name):
    student, teacher = _make(name)
    value = _call(name, student, teacher)
    assert value.shape == () and value.dtype == torch.float64
    expected = CASES[name][1](student.tolist(), teacher.tolist())
    assert value.item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(('loss', 'loop', 'settings', 'name'), SETTINGS)
def test_equals_its_formula_with_other_settings(loss, loop, settings, name):
    student, teacher = _make(name)
    expected = loop(student.tolist(), teacher.tolist(), **settings)
    assert _call(loss(**settings), student, teacher).item() == pytest.approx(expected, rel=1e-7)


def test_rkd_leaves_coinciding_samples_out_of_the_mean_distance():
    student, teacher = (feature[[0, 0, 1, 2]] for feature in _make('RKD'))
    for sides in ((student, teacher), (student, randn(4, 5)), (randn(4, 3), teacher)):
        expected = rkd_loop(*(side.tolist() for side in sides))
        assert RKDLoss()(*sides).item() == pytest.approx(expected, rel=1e-10)


def test_logits_of_any_size():
    student = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    teacher = torch.tensor([[-1e4, 1e4, 0.0]])
    # T = 4: the teacher is sure of class 1, to which the student gives the log-probability -5000;
    # next to class 2 alone -2500, which is also the log-probability it gives to classes 1 and 2.
    kd, dkd = KDLoss()(student, teacher), DKDLoss()(student, teacher, torch.tensor([0]))
    assert kd.item() == pytest.approx(16 * 5000)
    assert dkd.item() == pytest.approx(16 * (2500 + 8 * 2500))
    (kd + dkd).backward()
    assert student.grad.isfinite().all()


def test_dist_of_one_sample_has_no_columns():
    student = torch.tensor([[0.5, 0.3, 0.2]]).log() * 2
    teacher = torch.tensor([[0.5, 0.2, 0.3]]).log() * 2
    # 30 times the centred rows: (5, -1, -4) and (5, -4, -1); rho = 33 / 42.
    loss = DISTLoss(temperature=2.0)(student, teacher)
    assert loss.item() == pytest.approx(4 * (1 - 33 / 42), rel=1e-5)


@every_loss
def test_gradient_is_right_and_reaches_only_the_student(name):
    student, teacher = _make(name)
    assert torch.autograd.gradcheck(lambda s: _call(name, s, teacher), student)
    teacher.requires_grad_()
    _call(name, student, teacher).backward()
    assert student.grad.abs().sum() > 0 and teacher.grad is None


@every_loss
def test_a_student_equal_to_its_teacher_has_no_loss(name):
    teacher = randn(*CASES[name][2])
    assert _call(name, teacher.clone(), teacher).item() == pytest.approx(0, abs=1e-6)


@every_loss
def test_bfloat16_autocast(name):
    assert_float32_under_autocast(lambda values: _call(name, *values), _make(name, torch.float32))


CORNERS = CORNERS | {
    'identical pair in the student': lambda s, t: (torch.cat([s[:1], s[:1], s[2:]]), t),
    'identical pair in the teacher': lambda s, t: (s, torch.cat([t[:1], t[:1], t[2:]])),
    'constant student': lambda s, t: (s * 0 + 0.1, t),
}


@pytest.mark.parametrize('corner', CORNERS)
@every_loss
def test_corners_are_finite(name, corner):
    leaf, teacher = _make(name, torch.float32)
    student, teacher = CORNERS[corner](leaf, teacher)
    student.retain_grad()
    value = _call(name, student, teacher)
    value.backward()
    assert value.isfinite() and value >= -1e-7
    assert leaf.grad.isfinite().all()
    if corner != 'small':  # Losses blind to scale have a gradient of one over it.
        assert student.grad.abs().max() < 1e4, 'finite, but the end of a training'


@pytest.mark.parametrize('name', ['RKD', 'SPKD', 'PKT', 'CC'])
def test_a_batch_of_one_has_no_pairs_and_no_loss(name):
    student, teacher = (feature[:1] for feature in _make(name))
    assert _call(name, student, teacher).item() == pytest.approx(0, abs=1e-25)


@pytest.mark.parametrize('name', ['AT', 'NST'])
def test_the_larger_map_is_pooled_to_the_smaller(name):
    large, small = randn(4, 2, 4, 6), randn(4, 3, 2, 3, seed=1)
    pooled = large.unflatten(3, (3, 2)).unflatten(2, (2, 2)).mean((3, 5))
    expected = CASES[name][1](pooled.tolist(), small.tolist())
    assert _call(name, large, small).item() == pytest.approx(expected)
    assert _call(name, small, large).item() == pytest.approx(
        CASES[name][1](small.tolist(), pooled.tolist()))


@pytest.mark.parametrize('name, student, teacher', [
    *((name, (4, 5), (4, 6)) for name in LOGITS), *((name, (4, 1), (4, 5)) for name in LOGITS),
    ('CC', (4, 8), (3, 8)), ('FitNet', (4, 2, 3, 3), (4, 1, 3, 3)), ('AT', (4, 8), (4, 2, 3, 3)),
    ('NST', (4, 2, 3, 3), (1, 2, 3, 3))])
def test_shapes_that_do_not_fit_are_named(name, student, teacher):
    with pytest.raises(ValueError) as error:
        _call(name, torch.zeros(student), torch.zeros(teacher))
    assert str(student) in str(error.value) and str(teacher) in str(error.value)
    assert '\n' not in str(error.value)


def test_dkd_refuses_mixed_labels():
    with pytest.raises(ValueError, match=r'labels of shape \(4, 5\)'):
        DKDLoss()(torch.zeros(4, 5), torch.zeros(4, 5), torch.zeros(4, 5))


def test_cc_approaches_the_gaussian_kernel():
    """Of directions; the series to a high order is the exponential."""
    student, teacher = _make('CC')
    kernels = []
    for feature in (student.detach(), teacher):
        directions = feature / feature.norm(dim=1, keepdim=True)
        kernels.append((-0.7 * torch.cdist(directions, directions).square()).exp())
    expected = (kernels[0] - kernels[1]).square().mean()
    torch.testing.assert_close(CCLoss(gamma=0.7, order=30)(student, teacher), expected)


@pytest.mark.parametrize('arguments', [dict(gamma=0.0), dict(gamma=-1.0), dict(order=0)])
def test_cc_without_a_kernel(arguments):
    with pytest.raises(ValueError, match='give a gamma above 0 and an order of at least 1'):
        CCLoss(**arguments)
