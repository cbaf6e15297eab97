"""Every parameter-free classification loss: its formula in loops, gradient, precision, corners."""

import inspect
import math
from functools import partial
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from formulas import (
    CORNERS,
    assert_float32_under_autocast,
    dkd,
    dot,
    flat,
    kl,
    mean,
    norm,
    randn,
    soft_kl,
    softmax,
    square_distance,
    unit,
)

import mmkd  # noqa: F401
from mmkd.distillation.losses.attention_transfer import AttentionTransferLoss
from mmkd.distillation.losses.cc import CCLoss
from mmkd.distillation.losses.cskd import CSKDLoss
from mmkd.distillation.losses.dist import DISTLoss
from mmkd.distillation.losses.dkd import DKDLoss
from mmkd.distillation.losses.fitnet import FitNetLoss
from mmkd.distillation.losses.fsecd import FSECDLoss
from mmkd.distillation.losses.kd import KDLoss
from mmkd.distillation.losses.nst import NSTLoss
from mmkd.distillation.losses.pkt import PKTLoss
from mmkd.distillation.losses.rkd import RKDLoss
from mmkd.distillation.losses.sad import SADLoss
from mmkd.distillation.losses.scd import SCDLoss
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


def _pooled(image, height, width):
    """Average windows of a list of rows that its sides are multiples of."""
    tall, wide = len(image) // height, len(image[0]) // width
    return [[mean(image[y * tall + dy][x * wide + dx] for dy in range(tall) for dx in range(wide))
             for x in range(width)] for y in range(height)]


def _attention(sample, power, reduce):
    return [[reduce([abs(channel[y][x]) ** power for channel in sample])
             for x in range(len(sample[0][0]))] for y in range(len(sample[0]))]


def _similarities(samples, p, pool):
    maps = [_attention(sample, p, mean) for sample in samples]
    if pool is not None:
        maps = [_pooled(m, min(pool, len(m)), min(pool, len(m[0]))) for m in maps]
    flat = [unit([x for row in m for x in row]) for m in maps]
    return [[dot(a, b) for b in flat] for a in flat]


def scd_loop(student, teacher, p=2, pool=2, distance='l2'):
    rows = list(zip(_similarities(student, p, pool), _similarities(teacher, p, pool), strict=True))
    if distance == 'kl':
        return mean(kl([x / sum(t) for x in t], [x / sum(s) for x in s]) for s, t in rows)
    power = dict(l2=2, l1=1)[distance]
    return mean(abs(a - b) ** power for s, t in rows
                 for a, b in zip(unit(s), unit(t), strict=True))


def _upsampled(image, height, width):
    """Bilinear, each pixel's centre where it lies in the picture, constant beyond the border."""
    def places(large, small):
        for i in range(large):
            place = min(max((i + 0.5) * small / large - 0.5, 0), small - 1)
            low = int(place)
            yield low, min(low + 1, small - 1), place - low

    return [[(1 - v) * ((1 - u) * image[y0][x0] + u * image[y0][x1])
             + v * ((1 - u) * image[y1][x0] + u * image[y1][x1])
             for x0, x1, u in places(width, len(image[0]))]
            for y0, y1, v in places(height, len(image))]


def sad_loop(student, teacher):
    height, width = len(student[0][0]), len(student[0][0][0])
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        s, t = (_upsampled(_attention(x, 2, sum), height, width) for x in (s, t))
        s, t = (softmax([x for row in image for x in row]) for image in (s, t))
        total += square_distance(s, t) / (height * width)
    return total / len(student)


def fsecd_loop(student, teacher, policy='instance', temperature=0.1):
    student, teacher = ([unit(row) for row in side] for side in (student, teacher))
    labels = LABELS.tolist() if policy == 'class' else range(len(student))
    total = 0.0
    for s, label in zip(student, labels, strict=False):
        shares = softmax([dot(s, t) for t in teacher], temperature)
        total -= mean(math.log(share) for share, other in zip(shares, labels, strict=False)
                      if other == label)
    return total / len(student)


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
    'SCD': (SCDLoss(pool=2), scd_loop, (4, 3, 4, 6), (4, 5, 2, 2)),
    'SCD l1': (SCDLoss(p=1, distance='l1'), partial(scd_loop, p=1, pool=None, distance='l1'),
               (4, 3, 4, 6), (4, 5, 4, 6)),
    'SCD kl': (SCDLoss(distance='kl'), partial(scd_loop, pool=None, distance='kl'),
               (4, 3, 4, 6), (4, 5, 4, 6)),
    'SAD': (SADLoss(), sad_loop, (4, 2, 4, 6), (4, 3, 2, 3)),
    'CSKD': (CSKDLoss(), kd_loop, (4, 5), (4, 5)),
    'FSECD': (FSECDLoss(), fsecd_loop, (4, 5), (4, 5)),
    'FSECD of classes': (FSECDLoss('class'), partial(fsecd_loop, policy='class'), (4, 5), (4, 5)),
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
    (FSECDLoss, fsecd_loop, dict(policy='instance', temperature=0.3), 'FSECD'),
    (FSECDLoss, fsecd_loop, dict(policy='class', temperature=0.3), 'FSECD'),
]
LOGITS = ['KD', 'DKD', 'DIST', 'CSKD']
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
    rel = 1e-5 if name == 'SCD kl' else 1e-10  # its epsilon
    assert value.item() == pytest.approx(expected, rel=rel)


@pytest.mark.parametrize(('loss', 'loop', 'settings', 'name'), SETTINGS)
def test_equals_its_formula_with_other_settings(loss, loop, settings, name):
    student, teacher = _make(name)
    expected = loop(student.tolist(), teacher.tolist(), **settings)
    assert _call(loss(**settings), student, teacher).item() == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize('distance', ['l2', 'l1', 'kl'])
@pytest.mark.parametrize(('p', 'pool'), [(1, 2), (4, 2), (2, None), (2, 8)])
def test_options_of_scd(distance, p, pool):
    student, teacher = randn(4, 3, 4, 6).requires_grad_(), randn(4, 5, 2, 2, seed=1)
    loss = SCDLoss(p=p, pool=pool, distance=distance)
    expected = scd_loop(student.tolist(), teacher.tolist(), p, pool, distance)
    assert loss(student, teacher).item() == pytest.approx(expected, rel=1e-5)  # epsilon of 'kl'
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher), student)


def test_sad_takes_the_larger_of_two_sizes():
    small, large = randn(2, 3, 2, 2), randn(2, 3, 4, 4, seed=1)
    expected = sad_loop(large.tolist(), small.tolist())
    assert SADLoss()(small, large).item() == pytest.approx(expected)


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


@pytest.mark.parametrize('name', [name for name in CASES if 'FSECD' not in name])
def test_a_student_equal_to_its_teacher_has_no_loss(name):
    teacher = randn(*CASES[name][2])
    epsilon = 1e-6 if name == 'DIST' else 1e-12
    assert _call(name, teacher.clone(), teacher).item() == pytest.approx(0, abs=epsilon)


@every_loss
def test_bfloat16_autocast(name):
    values = _make(name, torch.float32)
    assert_float32_under_autocast(lambda values: _call(name, *values), values)
    torch.testing.assert_close(_call(name, *values).double(), _call(name, *_make(name)), rtol=1e-5,
                               atol=0)


CORNERS = CORNERS | {
    'identical pair in the student': lambda s, t: (torch.cat([s[:1], s[:1], s[2:]]), t),
    'identical pair in the teacher': lambda s, t: (s, torch.cat([t[:1], t[:1], t[2:]])),
    'constant student': lambda s, t: (s * 0 + 0.1, t),
}


@pytest.mark.parametrize(('name', 'corner'), [
    (name, corner) for name, corner in product(CASES, CORNERS)
    if 'FSECD' not in name or corner != 'one sample'])
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


@pytest.mark.parametrize('name', ['RKD', 'SPKD', 'PKT', 'CC', 'SCD', 'SCD l1', 'SCD kl'])
def test_a_batch_of_one_has_no_pairs_and_no_loss(name):
    leaf, teacher = _make(name)
    value = _call(name, leaf[:1], teacher[:1])
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-25) and leaf.grad.abs().max() < 1e-12


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
    ('FSECD', (4, 5), (4, 6)), ('SCD', (4, 8), (4, 2, 3, 3)), ('SCD', (4, 2, 3, 3), (1, 2, 3, 3)),
    ('SAD', (4, 2, 3, 3), (4, 8)),
    ('CC', (4, 8), (3, 8)), ('FitNet', (4, 2, 3, 3), (4, 1, 3, 3)), ('AT', (4, 8), (4, 2, 3, 3)),
    ('NST', (4, 2, 3, 3), (1, 2, 3, 3))])
def test_shapes_that_do_not_fit_are_named(name, student, teacher):
    with pytest.raises(ValueError) as error:
        _call(name, torch.zeros(student), torch.zeros(teacher))
    assert str(student) in str(error.value) and str(teacher) in str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(('loss', 'labels', 'message'), [
    (DKDLoss(), torch.zeros(4, 5), r'labels of shape \(4, 5\)'),
    (FSECDLoss('class'), torch.zeros(4, 5), r'shape \(4, 5\)'),
    (FSECDLoss('class'), None, 'got none')])
def test_mixed_or_missing_labels_are_refused(loss, labels, message):
    with pytest.raises(ValueError, match=message):
        loss(torch.zeros(4, 5), torch.zeros(4, 5), labels)


@pytest.mark.parametrize('policy', ['instance', 'class'])
def test_fsecd_of_zero_features(policy):
    student, teacher = randn(4, 3), randn(4, 3, seed=1)
    student[1], teacher[2] = 0, 0
    student.requires_grad_()
    value = FSECDLoss(policy)(student, teacher, LABELS)
    value.backward()
    assert value.item() == pytest.approx(fsecd_loop(student.tolist(), teacher.tolist(), policy))
    assert not student.grad[1].any()


def test_fsecd_of_one_class_and_of_one_sample():
    student, teacher = randn(3, 4), randn(3, 4, seed=1)
    shares = (F.normalize(student) @ F.normalize(teacher).T / 0.1).softmax(1)
    torch.testing.assert_close(FSECDLoss('class')(student, teacher, torch.zeros(3).long()),
                               -shares.log().mean())
    with pytest.raises(ValueError, match='too small for FSECDLoss'):
        FSECDLoss()(student[:1], teacher[:1])


def test_cc_approaches_the_gaussian_kernel():
    """Of directions; the series to a high order is the exponential."""
    student, teacher = _make('CC')
    kernels = []
    for feature in (student.detach(), teacher):
        directions = feature / feature.norm(dim=1, keepdim=True)
        kernels.append((-0.7 * torch.cdist(directions, directions).square()).exp())
    expected = (kernels[0] - kernels[1]).square().mean()
    torch.testing.assert_close(CCLoss(gamma=0.7, order=30)(student, teacher), expected)


@pytest.mark.parametrize(('loss', 'options', 'message'), [
    *((CCLoss, options, 'give a gamma above 0 and an order of at least 1')
      for options in (dict(gamma=0.0), dict(gamma=-1.0), dict(order=0))),
    (SCDLoss, dict(distance='l3'), "no distance 'l3': use"), (SCDLoss, dict(p=0), 'above 0'),
    (SCDLoss, dict(pool=0), 'above 0'),
    (FSECDLoss, dict(policy='clas'), "no policy 'clas': use 'instance' or 'class'")])
def test_options_out_of_range(loss, options, message):
    with pytest.raises(ValueError, match=message):
        loss(**options)
