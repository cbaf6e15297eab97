"""MCL and layer-wise MCL: their formulas in loops, gradients, precision, corners."""

import math

import pytest
import torch
import torch.nn.functional as F
from formulas import cross_entropy, dot, nested, randn, soft_kl

import mmkd  # noqa: F401
from mmkd.distillation.losses.l_mcl import LMCLLoss, StageOutputs
from mmkd.distillation.losses.mcl import MCLLoss

LABELS = torch.tensor([2, 0, 2, 1, 0, 2])  # class 1 has one member
PARTS = ('vcl', 'soft_vcl', 'icl', 'soft_icl')
STAGES = (2, 3)


# The formulas in plain Python, on nested lists.

def _similarity(a, b, tau):
    return [[dot(x, y) / tau for y in b] for x in a]


def contrast_loop(similarity, i, labels):
    others = [j for j in range(len(labels)) if j != i]
    positives = [j for j in others if labels[j] == labels[i]]
    total = sum(math.exp(similarity[i][j]) for j in others)
    if not positives:
        return 0.0
    return -sum(math.log(math.exp(similarity[i][p]) / total) for p in positives) / len(positives)


def mcl_loop(embeddings, labels, tau=0.1):
    """Return the four parts by name."""
    members, images = range(len(embeddings)), range(len(labels))
    s = {(a, b): _similarity(embeddings[a], embeddings[b], tau) for a in members for b in members}
    parts = dict.fromkeys(PARTS, 0.0)
    for i in images:
        for a in members:
            parts['vcl'] += contrast_loop(s[a, a], i, labels) / len(labels)
            for b in members:
                if a != b:
                    parts['icl'] += contrast_loop(s[a, b], i, labels) / len(labels)
                    parts['soft_vcl'] += soft_kl(s[a, a][i], s[b, b][i], 3) / len(labels)
                    parts['soft_icl'] += soft_kl(s[a, b][i], s[b, a][i], 3) / len(labels)
    return parts


def layerwise_loop(embeddings, weights, labels, tau=0.1):
    """As the authors' code: both members' four losses for (a, b), and again for (b, a)."""
    place, count = {}, 0
    for a, member in enumerate(embeddings):
        for k in range(len(member)):
            place[a, k], count = count, count + 1
    parts = dict.fromkeys(PARTS, 0.0)
    for a, k in place:
        for b, z in place:
            if a == b:
                continue
            h, g = embeddings[a][k], embeddings[b][z]
            aa, bb, ab, ba = (_similarity(*pair, tau) for pair in ((h, h), (g, g), (h, g), (g, h)))
            for i in range(len(labels)):
                w = weights[place[a, k]][place[b, z]][i] / len(labels)
                parts['vcl'] += w * (contrast_loop(aa, i, labels) + contrast_loop(bb, i, labels))
                parts['icl'] += w * (contrast_loop(ab, i, labels) + contrast_loop(ba, i, labels))
                parts['soft_vcl'] += w * (soft_kl(aa[i], bb[i], 3) + soft_kl(bb[i], aa[i], 3))
                parts['soft_icl'] += w * (soft_kl(ab[i], ba[i], 3) + soft_kl(ba[i], ab[i], 3))
    return parts


def _embeddings(members=2, dtype=torch.float64, batch=6):
    return [F.normalize(randn(batch, 4, seed=seed), dim=1).to(dtype).requires_grad_()
            for seed in range(members)]


def _weights():
    weights = randn(5, 5, 6, seed=9).sigmoid()
    return (weights + weights.transpose(0, 1)) / 2


def _outputs(dtype=torch.float64, weights=None):
    """Of two members with two and three stages."""
    flat = iter(_embeddings(sum(STAGES), dtype))
    embeddings = [[next(flat) for _ in range(count)] for count in STAGES]
    logits = [[randn(6, 3, seed=10 * a + k).to(dtype).requires_grad_() for k in range(count)]
              for a, count in enumerate(STAGES)]
    aggregated = [randn(6, 3, seed=50 + a).to(dtype).requires_grad_() for a in range(2)]
    return StageOutputs(embeddings, logits, aggregated,
                        _weights().to(dtype) if weights is None else weights)


def _only(part):
    return {name: float(name == part) for name in PARTS}


@pytest.mark.parametrize('members', [2, 3])
def test_each_part_equals_its_formula_in_loops(members):
    embeddings = _embeddings(members)
    expected = mcl_loop(nested(embeddings), LABELS.tolist())
    for part in PARTS:
        value = MCLLoss(**_only(part))(embeddings, LABELS)
        assert value.shape == () and value.dtype == torch.float64
        assert value.item() == pytest.approx(expected[part], rel=1e-10)
    whole = 0.1 * (expected['vcl'] + expected['icl']) + expected['soft_vcl'] + expected['soft_icl']
    assert MCLLoss()(embeddings, LABELS).item() == pytest.approx(whole, rel=1e-10)


def test_each_layerwise_part_equals_its_formula_in_loops():
    outputs = _outputs()
    expected = layerwise_loop(nested(outputs.embeddings), outputs.weights.tolist(),
                              LABELS.tolist())
    for part in PARTS:
        value = LMCLLoss(**_only(part)).layerwise(outputs, LABELS)
        assert value.item() == pytest.approx(expected[part], rel=1e-10)


def test_layerwise_is_a_sum_with_the_losses_of_the_heads():
    outputs = _outputs()
    logits, aggregated = nested(outputs.logits), nested(outputs.aggregated)
    labels = LABELS.tolist()
    expected = sum(cross_entropy(z, labels) for member in logits for z in member[:-1])
    expected += sum(cross_entropy(z, labels) for z in aggregated)
    expected += sum(soft_kl(own, their, 3) / 6 for member in logits for joined in aggregated
                    for own, their in zip(member[-1], joined, strict=True))
    loss = LMCLLoss(vcl=0, soft_vcl=0, icl=0, soft_icl=0)
    assert loss(outputs, LABELS).item() == pytest.approx(expected, rel=1e-10)
    whole = LMCLLoss()
    assert whole(outputs, LABELS).item() == pytest.approx(
        expected + whole.layerwise(outputs, LABELS).item())


def test_gradients_are_right():
    """Of the contrastive parts; the soft ones stop gradients, see below."""
    embeddings = tuple(_embeddings(3))
    for part in ('vcl', 'icl'):
        loss = MCLLoss(temperature=0.5, **_only(part))
        assert torch.autograd.gradcheck(lambda *e, loss=loss: loss(e, LABELS), embeddings)
    outputs = _outputs(weights=_weights().requires_grad_())
    flat = tuple(e for member in outputs.embeddings for e in member)
    loss = LMCLLoss(temperature=0.5, vcl=1, icl=1, soft_vcl=0, soft_icl=0)

    def layerwise(weights, *e):
        return loss.layerwise(StageOutputs([e[:2], e[2:]], [], [], weights), LABELS)

    assert torch.autograd.gradcheck(layerwise, (outputs.weights, *flat))
    assert torch.autograd.gradgradcheck(layerwise, (outputs.weights, *flat))


@pytest.mark.parametrize('part', ['soft_vcl', 'soft_icl'])
def test_gradients_of_the_soft_parts_stop_at_what_is_imitated(part):
    """Those of a twin in which the imitated distributions are numbers."""
    def twin(constants):
        def loss(first, second):
            live, fixed = (first, second), constants
            total = 0
            for a, b in ((0, 1), (1, 0)):
                own = live[a] @ live[a if part == 'soft_vcl' else b].T / 0.5
                other = fixed[b] @ fixed[b if part == 'soft_vcl' else a].T / 0.5
                total += 9 * F.kl_div((own / 3).log_softmax(1), (other / 3).softmax(1),
                                      reduction='batchmean')
            return total
        return loss

    embeddings = _embeddings()
    frozen = twin([e.detach().clone() for e in embeddings])
    assert torch.autograd.gradcheck(frozen, tuple(embeddings))
    loss = MCLLoss(temperature=0.5, **_only(part))
    ours = torch.autograd.grad(loss(embeddings, LABELS), embeddings)
    for own, expected in zip(ours, torch.autograd.grad(frozen(*embeddings), embeddings),
                             strict=True):
        torch.testing.assert_close(own, expected)
        assert own.abs().sum() > 0


def test_aggregated_logits_are_not_drawn_to_those_they_teach():
    outputs = _outputs()
    loss = LMCLLoss(vcl=0, soft_vcl=0, icl=0, soft_icl=0)
    loss(outputs, LABELS).backward()
    for member, joined in zip(outputs.logits, outputs.aggregated, strict=True):
        expected = torch.autograd.grad(F.cross_entropy(joined, LABELS), joined)[0]
        torch.testing.assert_close(joined.grad, expected)
        assert member[-1].grad.abs().sum() > 0


@pytest.mark.parametrize('batch', [1, 2, 6])
def test_a_batch_without_a_positive_pair(batch):
    embeddings = _embeddings(dtype=torch.float32, batch=batch)
    labels = torch.arange(batch)
    for part in ('vcl', 'icl'):
        assert MCLLoss(**_only(part))(embeddings, labels).item() == 0
    value = MCLLoss()(embeddings, labels)
    value.backward()
    assert value.isfinite() and value >= 0
    assert all(e.grad.isfinite().all() for e in embeddings)


CORNERS = {
    'zero embedding': lambda e: torch.cat([e[:1] * 0, e[1:]]),
    'all zero': lambda e: e * 0,
    'identical': lambda e: e[:1].expand_as(e),
}


@pytest.mark.parametrize('labels', [LABELS, LABELS * 0])
@pytest.mark.parametrize('corner', CORNERS)
def test_corners_are_finite(corner, labels):
    leaves = _embeddings(dtype=torch.float32)
    value = MCLLoss()([CORNERS[corner](leaf) for leaf in leaves], labels)
    value.backward()
    assert value.isfinite() and value >= 0
    assert all(leaf.grad.isfinite().all() for leaf in leaves)


def test_bfloat16_autocast():
    embeddings, outputs = _embeddings(dtype=torch.float32), _outputs(torch.float32)
    pairs = [(MCLLoss(), embeddings), (LMCLLoss(), outputs)]
    exact = [loss(value, LABELS) for loss, value in pairs]
    with torch.autocast('cpu', torch.bfloat16):
        same = [loss(value, LABELS) for loss, value in pairs]
        half = MCLLoss()([e.bfloat16() for e in embeddings], LABELS)
    for value, expected in zip(same, exact, strict=True):
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact[0], rtol=0.02, atol=0)


@pytest.mark.parametrize('shapes, labels, message', [
    ([(6, 4)], 6, r'at least two networks, not 1'),
    ([(6, 4), (6, 8)], 6, r'\(6, 4\) and \(6, 8\)'),
    ([(6, 4), (5, 4)], 6, r'\(6, 4\) and \(5, 4\)'),
    ([(6, 4, 2, 2), (6, 4, 2, 2)], 6, r'\(6, 4, 2, 2\)'),
    ([(6, 4), (6, 4)], 5, r'\(6, 4\) and labels of shape \(5,\)')])
def test_shapes_that_do_not_fit_are_named(shapes, labels, message):
    embeddings = [torch.zeros(shape) for shape in shapes]
    labels = torch.zeros(labels, dtype=torch.long)
    with pytest.raises(ValueError, match=message):
        MCLLoss()(embeddings, labels)
    outputs = StageOutputs([[e] for e in embeddings], [], [], torch.ones(2, 2, 6))
    with pytest.raises(ValueError, match=message):
        LMCLLoss()(outputs, labels)


def test_other_errors():
    with pytest.raises(ValueError, match=r'weights of shape \(2, 2, 6\)'):
        LMCLLoss()(_outputs(weights=torch.ones(2, 2, 6)), LABELS)
