"""Every parameter-free classification loss: its formula in loops, gradient, precision, corners."""

import inspect
import math
from itertools import product

import pytest
import torch

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

def _softmax(row, temperature=1.0):
    top = max(row)
    powers = [math.exp((z - top) / temperature) for z in row]
    return [power / sum(powers) for power in powers]


def _kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def _dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def _norm(vector):
    return math.sqrt(_dot(vector, vector))


def _unit(vector):
    return [x / _norm(vector) for x in vector] if _norm(vector) else vector


def _flat(nested):
    return [x for item in nested for x in _flat(item)] if isinstance(nested, list) else [nested]


def _huber(x):
    return x * x / 2 if abs(x) < 1 else abs(x) - 0.5


def _mean(values):
    values = list(values)
    return sum(values) / len(values)


def kd_loop(student, teacher):
    return _mean(16 * _kl(_softmax(t, 4), _softmax(s, 4))
                 for s, t in zip(student, teacher, strict=True))


def fitnet_loop(student, teacher):
    return _mean((s - t) ** 2 for s, t in zip(_flat(student), _flat(teacher), strict=True))


def _attention_map(sample):
    height, width = len(sample[0]), len(sample[0][0])
    return _unit([_mean(channel[y][x] ** 2 for channel in sample)
                  for y in range(height) for x in range(width)])


def attention_loop(student, teacher):
    return _mean((a - b) ** 2 for s, t in zip(student, teacher, strict=True)
                 for a, b in zip(_attention_map(s), _attention_map(t), strict=True))


def _relations(points):
    points = [_flat(point) for point in points]
    n = range(len(points))
    minus = {(i, j): [a - b for a, b in zip(points[i], points[j], strict=True)]
             for i, j in product(n, n)}
    distances = {key: _norm(vector) for key, vector in minus.items()}
    positive = [d for d in distances.values() if d > 0]
    normalised = [d / _mean(positive) for d in distances.values()]
    return normalised, [_dot(_unit(minus[i, j]), _unit(minus[k, j]))
                        for i, j, k in product(n, n, n)]


def rkd_loop(student, teacher):
    distance, angle = (_mean(_huber(a - b) for a, b in zip(own, his, strict=True))
                       for own, his in zip(_relations(student), _relations(teacher), strict=True))
    return 25 * distance + 50 * angle


def dkd_loop(student, teacher):
    total = 0.0
    for s, t, label in zip(student, teacher, LABELS.tolist(), strict=True):
        p_s, p_t = _softmax(s, 4), _softmax(t, 4)
        tckd = _kl([p_t[label], 1 - p_t[label]], [p_s[label], 1 - p_s[label]])
        q_s, q_t = ([x / (1 - p[label]) for c, x in enumerate(p) if c != label]
                    for p in (p_s, p_t))
        total += 16 * (tckd + 8 * _kl(q_t, q_s))
    return total / len(student)


def _gram(samples):
    samples = [_flat(sample) for sample in samples]
    return [_unit([_dot(a, b) for b in samples]) for a in samples]


def similarity_loop(student, teacher):
    return sum((a - b) ** 2 for a, b in zip(_flat(_gram(student)), _flat(_gram(teacher)),
                                            strict=True)) / len(student) ** 2


def nst_loop(student, teacher):
    def kernel(a, b):
        return _mean(_dot(x, y) ** 2 for x, y in product(a, b))

    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        s, t = ([_unit(_flat(channel)) for channel in sample] for sample in (s, t))
        total += kernel(s, s) + kernel(t, t) - 2 * kernel(s, t)
    return total / len(student)


def _gaussian(samples, gamma=0.4):
    """To second order, of vectors of length 1."""
    samples = [_unit(_flat(sample)) for sample in samples]
    cosines = [_dot(a, b) for a, b in product(samples, samples)]
    return [math.exp(-2 * gamma) * (1 + 2 * gamma * c + 2 * (gamma * c) ** 2) for c in cosines]


def cc_loop(student, teacher):
    return _mean((a - b) ** 2 for a, b in zip(_gaussian(student), _gaussian(teacher), strict=True))


def _neighbours(samples):
    samples = [_unit(_flat(sample)) for sample in samples]
    kernel = [[(_dot(a, b) + 1) / 2 for b in samples] for a in samples]
    return [k / sum(row) for row in kernel for k in row]


def pkt_loop(student, teacher):
    return _mean(t * math.log((t + 1e-7) / (s + 1e-7))
                 for s, t in zip(_neighbours(student), _neighbours(teacher), strict=True))


def _pearson(a, b):
    a, b = [x - _mean(a) for x in a], [x - _mean(b) for x in b]
    return _dot(a, b) / (_norm(a) * _norm(b) + 1e-8)


def dist_loop(student, teacher):
    student, teacher = [_softmax(s) for s in student], [_softmax(t) for t in teacher]
    inter = _mean(1 - _pearson(s, t) for s, t in zip(student, teacher, strict=True))
    intra = _mean(1 - _pearson(s, t) for s, t in zip(zip(*student, strict=True),
                                                     zip(*teacher, strict=True), strict=True))
    return inter + intra


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
LOGITS = ['KD', 'DKD', 'DIST']
every_loss = pytest.mark.parametrize('name', CASES)


def _randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def _make(name, dtype=torch.float64):
    _, _, student, teacher = CASES[name]
    return _randn(*student).to(dtype).requires_grad_(), _randn(*teacher, seed=1).to(dtype)


def _call(name, student, teacher, labels=LABELS):
    loss = CASES[name][0]
    if 'labels' in inspect.signature(loss.forward).parameters:
        return loss(student, teacher, labels=labels[:len(student)])
    return loss(student, teacher)


@every_loss
def test_equals_its_formula_in_loops(name):
    student, teacher = _make(name)
    value = _call(name, student, teacher)
    assert value.shape == () and value.dtype == torch.float64
    expected = CASES[name][1](student.tolist(), teacher.tolist())
    assert value.item() == pytest.approx(expected, rel=1e-10)


@every_loss
def test_gradient_is_right_and_reaches_only_the_student(name):
    student, teacher = _make(name)
    assert torch.autograd.gradcheck(lambda s: _call(name, s, teacher), student)
    teacher.requires_grad_()
    _call(name, student, teacher).backward()
    assert student.grad.abs().sum() > 0 and teacher.grad is None


@every_loss
def test_a_student_equal_to_its_teacher_has_no_loss(name):
    teacher = _randn(*CASES[name][2])
    assert _call(name, teacher.clone(), teacher).item() == pytest.approx(0, abs=1e-6)


@every_loss
def test_bfloat16_autocast(name):
    student, teacher = _make(name, torch.float32)
    exact = _call(name, student, teacher)
    with torch.autocast('cpu', torch.bfloat16):
        same = _call(name, student, teacher)
        half = _call(name, student.bfloat16(), teacher.bfloat16())
    assert exact.dtype == same.dtype == half.dtype == torch.float32
    torch.testing.assert_close(same, exact, rtol=1e-6, atol=0)
    rounded = _call(name, student.bfloat16().float(), teacher.bfloat16().float())
    torch.testing.assert_close(half, rounded, rtol=1e-6, atol=0)  # computed in float32 ...
    torch.testing.assert_close(half, exact, rtol=0.02, atol=0)  # ... from rounded features


CORNERS = {
    'one sample': lambda s, t: (s[:1], t[:1]),
    'zero student': lambda s, t: (s * 0, t),
    'zero teacher': lambda s, t: (s, t * 0),
    'zero both': lambda s, t: (s * 0, t * 0),
    'one zero sample': lambda s, t: (torch.cat([s[:1] * 0, s[1:]]), t),
    'identical pair in the student': lambda s, t: (torch.cat([s[:1], s[:1], s[2:]]), t),
    'identical pair in the teacher': lambda s, t: (s, torch.cat([t[:1], t[:1], t[2:]])),
    'identical students': lambda s, t: (s[:1].expand_as(s), t),
    'identical both': lambda s, t: (s[:1].expand_as(s), t[:1].expand_as(t)),
    'constant student': lambda s, t: (s * 0 + 0.1, t),
    'large': lambda s, t: (s * 1e4, t * -1e4),
    'small': lambda s, t: (s * 1e-15, t * 1e-15),
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
    large, small = _randn(4, 2, 4, 6), _randn(4, 3, 2, 3, seed=1)
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
