"""DML, KDCL, ONE, OKDDip, PCL: their formulas in loops, gradients, precision, corners."""

import math
from itertools import permutations

import pytest
import torch
from formulas import (
    assert_float32_under_autocast,
    cross_entropy,
    mean,
    randn,
    soft_kl,
    softmax,
)

import mmkd  # noqa: F401
from mmkd.distillation.losses.dml import DMLLoss
from mmkd.distillation.losses.kdcl import KDCLLoss
from mmkd.distillation.losses.okddip import OKDDipLoss
from mmkd.distillation.losses.one import ONELoss
from mmkd.distillation.losses.pcl import PCLLoss

LABELS = torch.tensor([2, 0, 2, 1])
BATCH, CLASSES, MEMBERS = 4, 5, 3


# The formulas in plain Python, on nested lists.

def _kl(student, teacher, temperature):
    """``T^2`` times the divergence of batches of logits, averaged."""
    return mean(soft_kl(s, t, temperature) for s, t in zip(student, teacher, strict=True))


def _mixed(weights, logits):
    """``sum_i w_bi z_ib`` for weights ``(B, M)`` and logits ``(M, B, C)``."""
    return [[sum(w * logits[i][b][c] for i, w in enumerate(weights[b]))
             for c in range(len(logits[0][b]))] for b in range(len(weights))]


def dml_loop(logits):
    return sum(mean(_kl(z, other, 1) for j, other in enumerate(logits) if j != i)
               for i, z in enumerate(logits))


def _kdcl(target, logits):
    return sum(_kl(z, target, 2) for z in logits)


def naive_loop(logits, labels):
    best = [min(range(len(logits)), key=lambda i, b=b, y=y: cross_entropy([logits[i][b]], [y]))
            for b, y in enumerate(labels)]
    return _kdcl([logits[i][b] for b, i in enumerate(best)], logits)


def minlogit_loop(logits, labels):
    target = [[min(z[b][c] - z[b][y] for z in logits) for c in range(len(logits[0][b]))]
              for b, y in enumerate(labels)]
    return _kdcl(target, logits)


def _errors(logits, labels):
    return [[p - (c == y) for row, y in zip(z, labels, strict=True)
             for c, p in enumerate(softmax(row))] for z in logits]


def _covariance(logits, labels):
    errors = _errors(logits, labels)
    return [[sum(a * b for a, b in zip(e, f, strict=True)) / len(labels) + (i == j) * 1e-6
             for j, f in enumerate(errors)] for i, e in enumerate(errors)]


def _determinant(matrix):
    size = range(len(matrix))
    return sum(math.prod(matrix[i][p[i]] for i in size)
               * math.prod(1 if p[i] < p[j] else -1 for i in size for j in size if i < j)
               for p in permutations(size))


def general_loop(logits, labels):
    """By Cramer's rule: ``C w = 1``, up to scale."""
    covariance = _covariance(logits, labels)
    weights = [_determinant([[1 if j == column else value for j, value in enumerate(row)]
                             for row in covariance]) for column in range(len(logits))]
    weights = [w / sum(weights) for w in weights]
    return _kdcl(_mixed([weights] * len(labels), logits), logits)


def one_loop(logits, gate, labels, warmup=1.0, auxiliary=False):
    ensemble = _mixed(gate, logits)
    loss = cross_entropy(ensemble, labels) + warmup * sum(_kl(z, ensemble, 3) for z in logits)
    return loss + auxiliary * sum(cross_entropy(z, labels) for z in logits[1:])


def okddip_loop(logits, attention):
    *peers, leader = logits
    loss = _kl(leader, [[mean(z[b][c] for z in peers) for c in range(len(leader[b]))]
                        for b in range(len(leader))], 3)
    return loss + sum(_kl(z, _mixed([weights[a] for weights in attention], peers), 3)
                      for a, z in enumerate(peers))


def pcl_loop(logits, ensemble, means, labels, warmup=1.0):
    loss = sum(_kl(z, ensemble, 3) + mean(_kl(z, q, 3) for j, q in enumerate(means) if j != i)
               for i, z in enumerate(logits))
    return cross_entropy(ensemble, labels) + warmup * loss


LOGITS = (MEMBERS, BATCH, CLASSES)
GATE, ATTENTION = (BATCH, MEMBERS), (BATCH, MEMBERS - 1, MEMBERS - 1)
# name: shapes of the tensors, how the loss is called on them, the same in loops
CASES = {
    'DML': ([LOGITS], lambda z: DMLLoss()(list(z)), dml_loop),
    'KDCL naive': ([LOGITS], lambda z: KDCLLoss('naive')(list(z), LABELS[:z.shape[1]]),
                   lambda z: naive_loop(z, LABELS.tolist())),
    'KDCL minlogit': ([LOGITS], lambda z: KDCLLoss()(list(z), LABELS[:z.shape[1]]),
                      lambda z: minlogit_loop(z, LABELS.tolist())),
    'KDCL general': ([LOGITS], lambda z: KDCLLoss('general')(list(z), LABELS[:z.shape[1]]),
                     lambda z: general_loop(z, LABELS.tolist())),
    'KDCL linear': ([LOGITS], lambda z: KDCLLoss('linear')(list(z), LABELS[:z.shape[1]]), None),
    'ONE': ([LOGITS, GATE],
            lambda z, g: ONELoss()((list(z), g.softmax(-1)), LABELS[:len(g)], 0.5),
            lambda z, g: one_loop(z, [softmax(row) for row in g], LABELS.tolist(), 0.5)),
    'ONE with auxiliary CE': (
        [LOGITS, GATE],
        lambda z, g: ONELoss(auxiliary_ce=True)((list(z), g.softmax(-1)), LABELS[:len(g)]),
        lambda z, g: one_loop(z, [softmax(row) for row in g], LABELS.tolist(), auxiliary=True)),
    'OKDDip': ([LOGITS, ATTENTION], lambda z, a: OKDDipLoss()((list(z), a.softmax(-1))),
               lambda z, a: okddip_loop(z, [[softmax(row) for row in rows] for rows in a])),
    'PCL': ([LOGITS, LOGITS[1:], LOGITS],
            lambda z, e, q: PCLLoss()((list(z), e), list(q), LABELS[:len(e)], 0.5),
            lambda z, e, q: pcl_loop(z, e, q, LABELS.tolist(), 0.5)),
}
every_loss = pytest.mark.parametrize('name', CASES)


def _make(name, dtype=torch.float64):
    return [2 * randn(*shape, seed=i, dtype=dtype) for i, shape in enumerate(CASES[name][0])]


def _call(name, values):
    return CASES[name][1](*values)


@pytest.mark.parametrize('name', [name for name, case in CASES.items() if case[2]])
def test_equals_its_formula_in_loops(name):
    values = _make(name)
    value = _call(name, values)
    assert value.shape == () and value.dtype == torch.float64
    assert value.item() == pytest.approx(CASES[name][2](*(v.tolist() for v in values)), rel=1e-9)


def _surest(logits, label, weights):
    """Least cross-entropy that combinations of one image's logits have; ``(M, C)``."""
    combined = weights @ logits
    return (combined.logsumexp(1) - combined[:, label]).min().item()


@pytest.mark.parametrize('members', [2, 3, 4])
@pytest.mark.parametrize('scale', [0.1, 1.0, 10.0])
def test_linear_finds_the_best_convex_combination(members, scale):
    logits = scale * randn(members, 12, 6)
    labels = torch.arange(12) % 6
    found = KDCLLoss('linear').ensemble(logits, labels)
    steps = {2: 2000, 3: 120, 4: 40}[members]
    grid = torch.cartesian_prod(*[torch.arange(steps + 1)] * (members - 1)).view(-1, members - 1)
    grid = grid[grid.sum(1) <= steps].double() / steps
    grid = torch.cat([grid, 1 - grid.sum(1, keepdim=True)], dim=1)
    cross_entropy = torch.nn.functional.cross_entropy(found, labels, reduction='none')
    for image, label in enumerate(labels.tolist()):
        best = _surest(logits[:, image], label, grid)
        assert cross_entropy[image].item() <= best + 1e-4


def test_linear_stays_among_the_convex_combinations():
    """Of a better member and its opposite it is the better one."""
    sure = 4.0 * torch.nn.functional.one_hot(LABELS, CLASSES).double()
    found = KDCLLoss('linear').ensemble(torch.stack([sure, -sure]), LABELS)
    torch.testing.assert_close(found, sure, rtol=0, atol=1e-3)


def test_general_has_the_least_squared_error_of_all_weights():
    logits = randn(2, 6, 4)
    labels = torch.arange(6) % 4
    target = KDCLLoss('general').ensemble(logits, labels)
    (first, second), matrix = logits, torch.tensor(_covariance(logits.tolist(), labels.tolist()))
    w = ((target - second) / (first - second)).mean().item()
    torch.testing.assert_close(target, w * first + (1 - w) * second)

    def error(w):
        return w * w * matrix[0, 0] + 2 * w * (1 - w) * matrix[0, 1] + (1 - w) ** 2 * matrix[1, 1]

    assert all(error(w) <= error(w + step) for step in (-1e-4, 1e-4, -0.1, 0.1))


def test_the_leader_learns_from_the_peers_alone_and_teaches_nobody():
    logits = [z.requires_grad_() for z in randn(*LOGITS)]
    alone = torch.eye(MEMBERS - 1, dtype=torch.float64).expand(BATCH, -1, -1)
    OKDDipLoss()((logits, alone)).backward()
    # Each peer is its own target, and the leader's target is a constant.
    assert all(z.grad.abs().max() < 1e-12 for z in logits[:-1])
    mean = (logits[0] + logits[1]).detach() / 2
    expected = 3 * ((logits[2].detach() / 3).softmax(1) - (mean / 3).softmax(1)) / BATCH
    torch.testing.assert_close(logits[2].grad, expected)
    elsewhere = [logits[0], logits[1], logits[2] + 1000 * torch.eye(BATCH, CLASSES)]
    peers = [z.detach().requires_grad_() for z in elsewhere[:-1]]
    weights = randn(*ATTENTION).softmax(-1)
    gradients = [torch.autograd.grad(OKDDipLoss()(([*peers, leader.detach()], weights)), peers)
                 for leader in (logits[2], elsewhere[2])]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_the_gradient_passes_through_okddips_targets_if_asked():
    """The authors' code in plain torch, where nothing is detached."""
    logits = [z.requires_grad_() for z in randn(*LOGITS)]
    weights = randn(*ATTENTION).softmax(-1)
    *peers, leader = logits
    targets = [sum(weights[:, a, b, None] * z for b, z in enumerate(peers))
               for a in range(len(peers))]
    pairs = [*zip(peers, targets, strict=True), (leader, sum(peers) / len(peers))]
    expected = 0
    for own, target in pairs:
        p, t = (own / 3).softmax(1), (target / 3).softmax(1)
        expected = expected + 9 * (t * (t.log() - p.log())).sum(1).mean()
    value = OKDDipLoss(target_gradient=True)((logits, weights))
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(value, OKDDipLoss()((logits, weights)))
    gradients, constant = _grad(value, logits), _grad(OKDDipLoss()((logits, weights)), logits)
    torch.testing.assert_close(gradients, _grad(expected, logits))
    assert (gradients[0] - constant[0]).abs().max() > 1e-3


def test_what_is_tapped_before_the_mean_teachers_logits_is_not_looked_at():
    z, e, q = _make('PCL')
    embeddings = [torch.zeros(BATCH, 7)] * MEMBERS
    assert PCLLoss()((list(z), e), [*embeddings, *q], LABELS) == PCLLoss()(
        (list(z), e), list(q), LABELS)


# Gradients.

def _grad(value, inputs):
    return torch.autograd.grad(value, inputs, allow_unused=True)


def _softened(z, temperature):
    return (z / temperature).softmax(-1)


def _imitation_gradient(z, target, temperature):
    """``d/dz T^2 KL(p_t || p)``, batch mean, with a constant target."""
    return temperature * (_softened(z, temperature) - _softened(target, temperature)) / len(z)


def _ce_gradient(z):
    return (z.softmax(-1) - torch.nn.functional.one_hot(LABELS, CLASSES)) / len(z)


def test_targets_get_no_gradient():
    """Every member's gradient is that of its divergences with constant targets, no more."""
    z = randn(*LOGITS).requires_grad_()
    fixed = z.detach()
    got, = _grad(DMLLoss()(list(z)), [z])
    expected = [sum(_imitation_gradient(own, other, 1) for j, other in enumerate(fixed) if j != i)
                / (MEMBERS - 1) for i, own in enumerate(fixed)]
    torch.testing.assert_close(got, torch.stack(expected))
    for name in ('naive', 'linear', 'minlogit', 'general'):
        loss = KDCLLoss(name)
        got, = _grad(loss(list(z), LABELS), [z])
        target = loss.ensemble(fixed, LABELS)
        torch.testing.assert_close(got, torch.stack(
            [_imitation_gradient(own, target, 2) for own in fixed]))


@pytest.mark.parametrize('auxiliary', [False, True])
def test_the_cross_entropy_of_the_ensemble_trains_gate_and_branches(auxiliary):
    z, gate = randn(*LOGITS).requires_grad_(), randn(*GATE).softmax(-1).requires_grad_()
    value = ONELoss(auxiliary_ce=auxiliary)((list(z), gate), LABELS, warmup=0.5)
    got_z, got_gate = _grad(value, [z, gate])
    ensemble = torch.einsum('bm,mbc->bc', gate, z).detach()
    from_ce = _ce_gradient(ensemble)
    torch.testing.assert_close(got_gate, torch.einsum('bc,mbc->bm', from_ce, z.detach()))
    expected = [gate[:, i:i + 1].detach() * from_ce + 0.5 * _imitation_gradient(own, ensemble, 3)
                + auxiliary * (i > 0) * _ce_gradient(own) for i, own in enumerate(z.detach())]
    torch.testing.assert_close(got_z, torch.stack(expected))


def test_nothing_but_the_attention_trains_the_attention():
    z, weights = randn(*LOGITS), randn(*ATTENTION).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a: OKDDipLoss()((list(z), a.softmax(-1))), weights)
    assert _grad(OKDDipLoss()((list(z), weights.softmax(-1))), [weights])[0].abs().sum() > 0


def test_mean_teachers_and_the_ensemble_are_constants_of_the_divergences():
    z, e, q = (v.requires_grad_() for v in _make('PCL'))
    got_z, got_e, got_q = _grad(PCLLoss()((list(z), e), list(q), LABELS, 0.5), [z, e, q])
    assert got_q is None
    torch.testing.assert_close(got_e, _ce_gradient(e.detach()))
    expected = [0.5 * (_imitation_gradient(own, e.detach(), 3)
                       + sum(_imitation_gradient(own, mean, 3) for j, mean in enumerate(q.detach())
                             if j != i) / (MEMBERS - 1))
                for i, own in enumerate(z.detach())]
    torch.testing.assert_close(got_z, torch.stack(expected))


# Precision and corners.

@every_loss
def test_bfloat16_autocast(name):
    assert_float32_under_autocast(lambda values: _call(name, values), _make(name, torch.float32),
                                  rtol=0.05, rounded=0.02)


CORNERS = {
    'one sample': lambda z: z[:, :1],
    'zero logits': lambda z: z * 0,
    'equal members': lambda z: z[:1].expand_as(z),
    'equal samples': lambda z: z[:, :1].expand_as(z),
    'huge': lambda z: z * 1e4,
    'tiny': lambda z: z * 1e-15,
    'two members': lambda z: z[:2],
}


@pytest.mark.parametrize('corner', CORNERS)
@every_loss
def test_corners_are_finite(name, corner):
    leaf = randn(*LOGITS).float().requires_grad_()
    z = CORNERS[corner](leaf)
    members, batch = z.shape[:2]
    rest = {'ONE': [(batch, members)], 'OKD': [(batch, members - 1, members - 1)],
            'PCL': [(batch, CLASSES), (members, batch, CLASSES)]}.get(name[:3], [])
    value = _call(name, [z, *(randn(*shape, seed=1).float() for shape in rest)])
    value.backward()
    assert value.isfinite() and value >= -1e-5
    assert leaf.grad.isfinite().all()


@pytest.mark.parametrize('labels', [[0] * 4, [4] * 4])
@pytest.mark.parametrize('name', ['naive', 'linear', 'minlogit', 'general'])
def test_all_labels_may_be_equal(name, labels):
    value = KDCLLoss(name)(list(randn(*LOGITS)), torch.tensor(labels))
    assert value.isfinite() and value > 0


@every_loss
def test_equal_members_have_nothing_to_imitate(name):
    """What is left are the cross-entropies."""
    z = randn(*LOGITS[1:]).expand(LOGITS)
    values = [z, *_make(name)[1:]]
    if name == 'PCL':
        values = [z, z[0], z]
    if name.startswith('KDCL'):
        target = KDCLLoss(name.split()[1]).ensemble(z, LABELS)
        shift = z[0].gather(1, LABELS[:, None]) if 'minlogit' in name else 0
        torch.testing.assert_close(target, z[0] - shift)
    cross_entropies = {'ONE': 1, 'PCL': 1, 'ONE with auxiliary CE': MEMBERS}.get(name, 0)
    expected = cross_entropies * cross_entropy(z[0].tolist(), LABELS.tolist())
    assert _call(name, values).item() == pytest.approx(expected, abs=1e-6)


GOOD = list(torch.zeros(LOGITS))
BAD = {
    'DML alone': (lambda: DMLLoss()(GOOD[:1]), 'at least two members, not of 1'),
    'DML of nobody': (lambda: DMLLoss()([]), 'at least two members, not of 0'),
    'DML of other classes': (lambda: DMLLoss()([GOOD[0], torch.zeros(4, 6)]), r'5\), \(4, 6\)'),
    'DML of maps': (lambda: DMLLoss()([torch.zeros(4, 2, 3, 3)] * 2), 'head.fc'),
    'KDCL alone': (lambda: KDCLLoss()(GOOD[:1], LABELS), 'at least two members'),
    'KDCL of other labels': (lambda: KDCLLoss()(GOOD, LABELS[:3]), r'shape \(4,\).*\(3,\)'),
    'KDCL of no ensemble': (lambda: KDCLLoss('best'), "'best': use 'naive', 'linear', 'minlogit'"),
    'ONE alone': (lambda: ONELoss()((GOOD[:1], torch.ones(4, 1)), LABELS), 'at least two members'),
    'ONE of another gate': (lambda: ONELoss()((GOOD, torch.ones(4, 2)), LABELS), r'4, 3\).*\(4, 2'),
    'OKDDip alone': (lambda: OKDDipLoss()((GOOD[:1], torch.ones(4, 0, 0))), 'at least two members'),
    'OKDDip of all': (lambda: OKDDipLoss()((GOOD, torch.ones(4, 3, 3))), r'2, 2\).*\(4, 3, 3\)'),
    'PCL alone': (lambda: PCLLoss()((GOOD[:1], GOOD[0]), GOOD[:1], LABELS), 'at least two members'),
    'PCL of few means': (lambda: PCLLoss()((GOOD, GOOD[0]), GOOD[:2], LABELS), '3 peers and 2'),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_input_is_named_in_one_line(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert '\n' not in str(error.value)
