"""MCL, layer-wise MCL and that with memory banks: their formulas in loops, gradients, corners."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from formulas import cross_entropy, dot, nested, randn, soft_kl

import mmkd  # noqa: F401
from mmkd.distillation.losses.l_mcl import LMCLLoss, StageOutputs
from mmkd.distillation.losses.l_mcl_memory import LMCLMemoryLoss
from mmkd.distillation.losses.mcl import MCLLoss

LABELS = torch.tensor([2, 0, 2, 1, 0, 2])  # class 1 has one member
PARTS = ('vcl', 'soft_vcl', 'icl', 'soft_icl')
STAGES = (2, 3)

# Of the memory: classes of all samples, which of them the batch is, and with which each is
# compared: itself, two of its class, three of others.
SAMPLE_LABELS = torch.tensor([2, 0, 2, 1, 0, 2, 1, 0])
INDICES = torch.tensor([5, 1, 0, 3, 7, 2])
DRAWN = torch.tensor([[5, 0, 2, 1, 3, 6], [1, 4, 7, 0, 3, 2], [0, 2, 0, 4, 6, 1],
                      [3, 6, 3, 0, 1, 7], [7, 1, 4, 5, 6, 3], [2, 5, 0, 7, 3, 4]])
COHORT = SimpleNamespace(members='ab')


# The formulas in plain Python, on nested lists.

def _similarity(a, b, tau):
    return [[dot(x, y) / tau for y in b] for x in a]


def contrast_loop(row, positives, others):
    """``others``: all that an image is compared with, the positives among them."""
    total = sum(math.exp(row[j]) for j in others)
    return -sum(math.log(math.exp(row[p]) / total) for p in positives) / max(len(positives), 1)


def _in_batch(i):
    """Return positives of an image, and all that it is compared with."""
    labels = LABELS.tolist()
    others = [j for j in range(len(labels)) if j != i]
    return [j for j in others if labels[j] == labels[i]], others


def mcl_loop(embeddings, tau=0.1):
    """Return the four parts by name."""
    members, images = range(len(embeddings)), range(len(LABELS))
    s = {(a, b): _similarity(embeddings[a], embeddings[b], tau) for a in members for b in members}
    parts = dict.fromkeys(PARTS, 0.0)
    for i in images:
        for a in members:
            parts['vcl'] += contrast_loop(s[a, a][i], *_in_batch(i)) / len(LABELS)
            for b in members:
                if a != b:
                    parts['icl'] += contrast_loop(s[a, b][i], *_in_batch(i)) / len(LABELS)
                    parts['soft_vcl'] += soft_kl(s[a, a][i], s[b, b][i], 3) / len(LABELS)
                    parts['soft_icl'] += soft_kl(s[a, b][i], s[b, a][i], 3) / len(LABELS)
    return parts


def _layerwise_loop(weights, row, compared):
    """As the authors' code: both members' four losses for (a, b), and again for (b, a).

    ``row(stage, other, i)``: similarities of an image's embedding in a stage, a pair of member and
    number, to those that stand for the other stage. ``compared(i, same)``: positives among them
    and all, where both are the same stage and where not.
    """
    stages = [(a, k) for a, count in enumerate(STAGES) for k in range(count)]
    parts = dict.fromkeys(PARTS, 0.0)
    for x, one in enumerate(stages):
        for y, other in enumerate(stages):
            for i, weight in enumerate(weights[x][y] if one[0] != other[0] else []):
                w = weight / len(LABELS)
                own = row(one, one, i), row(other, other, i)
                across = row(one, other, i), row(other, one, i)
                for first, second in ((0, 1), (1, 0)):
                    parts['vcl'] += w * contrast_loop(own[first], *compared(i, True))
                    parts['icl'] += w * contrast_loop(across[first], *compared(i, False))
                    parts['soft_vcl'] += w * soft_kl(own[first], own[second], 3)
                    parts['soft_icl'] += w * soft_kl(across[first], across[second], 3)
    return parts


def layerwise_loop(outputs, tau=0.1):
    embeddings = nested(outputs.embeddings)

    def row(stage, other, i):
        (a, k), (b, z) = stage, other
        return [dot(embeddings[a][k][i], vector) / tau for vector in embeddings[b][z]]

    return _layerwise_loop(outputs.weights.tolist(), row, lambda i, same: _in_batch(i))


def memory_loop(outputs, banks, tau=0.5):
    embeddings, drawn = nested(outputs.embeddings), DRAWN.tolist()

    def row(stage, other, i):
        (a, k), (b, _) = stage, other
        rows = drawn[i][1:] if stage == other else drawn[i]
        return [dot(embeddings[a][k][i], banks[b][j]) / tau for j in rows]

    return _layerwise_loop(outputs.weights.tolist(), row, lambda i, same: (
        (range(2), range(5)) if same else (range(3), range(6))))


def heads_loop(outputs):
    logits, aggregated, labels = nested(outputs.logits), nested(outputs.aggregated), LABELS.tolist()
    heads = [z for member in logits for z in member[:-1]] + aggregated
    return sum(cross_entropy(z, labels) for z in heads) + sum(
        soft_kl(own, their, 3) / 6 for member in logits for joined in aggregated
        for own, their in zip(member[-1], joined, strict=True))


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
    expected = mcl_loop(nested(embeddings))
    for part in PARTS:
        value = MCLLoss(**_only(part))(embeddings, LABELS)
        assert value.shape == () and value.dtype == torch.float64
        assert value.item() == pytest.approx(expected[part], rel=1e-10)
    whole = 0.1 * (expected['vcl'] + expected['icl']) + expected['soft_vcl'] + expected['soft_icl']
    assert MCLLoss()(embeddings, LABELS).item() == pytest.approx(whole, rel=1e-10)


def test_each_layerwise_part_equals_its_formula_in_loops():
    outputs = _outputs()
    expected = layerwise_loop(outputs)
    for part in PARTS:
        value = LMCLLoss(**_only(part)).layerwise(outputs, LABELS)
        assert value.item() == pytest.approx(expected[part], rel=1e-10)


def test_layerwise_is_a_sum_with_the_losses_of_the_heads():
    outputs = _outputs()
    expected = heads_loop(outputs)
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


# With memory banks.

def _memory(draws=DRAWN, **options):
    loss = LMCLMemoryLoss(COHORT, SAMPLE_LABELS, **dict(
        dim=4, num_negatives=3, num_positives=2, temperature=0.5) | options).double()
    if draws is not None:
        loss.samples.of_the_same = lambda indices, number: draws[:, 1:3]
        loss.samples.of_others = lambda indices, number: draws[:, 3:]
    return loss


@pytest.mark.parametrize('part', PARTS)
def test_each_part_with_memory_equals_its_formula_in_loops(part):
    outputs, loss = _outputs(), _memory(**_only(part))
    value = loss.layerwise(outputs, loss.compared_with(LABELS, INDICES))
    assert value.shape == () and value.dtype == torch.float64
    assert value.item() == pytest.approx(memory_loop(outputs, loss.banks.tolist())[part], rel=1e-10)


def test_the_whole_with_memory_adds_the_losses_of_the_heads():
    outputs, loss = _outputs(), _memory(vcl=0.2, icl=0.3)
    parts = memory_loop(outputs, loss.banks.tolist())
    expected = 0.2 * parts['vcl'] + 0.3 * parts['icl'] + parts['soft_vcl'] + parts['soft_icl']
    assert loss(outputs, LABELS, INDICES).item() == pytest.approx(expected + heads_loop(outputs))


def test_gradients_reach_embeddings_and_weights_and_stop_at_banks():
    outputs = _outputs(weights=_weights().requires_grad_())
    loss = _memory(soft_vcl=0.0, soft_icl=0.0)
    compared = loss.compared_with(LABELS, INDICES)

    def call(weights, *flat):
        return loss.layerwise(StageOutputs([flat[:2], flat[2:]], [], [], weights), compared)

    flat = [e for member in outputs.embeddings for e in member]
    assert torch.autograd.gradcheck(call, (outputs.weights, *flat))
    loss(outputs, LABELS, INDICES).backward()
    assert all(e.grad.abs().sum() > 0 for e in flat) and not loss.banks.requires_grad


def test_what_is_imitated_with_memory_is_a_constant():
    outputs, loss = _outputs(), _memory(vcl=0.0, icl=0.0)
    compared = loss.compared_with(LABELS, INDICES)
    flat = [e for member in outputs.embeddings for e in member]
    own = torch.autograd.grad(loss.layerwise(outputs, compared), flat)
    fixed = [[e.detach() for e in member] for member in outputs.embeddings]
    twin = torch.autograd.grad(loss.layerwise(outputs, compared, fixed), flat)
    for gradient, expected in zip(own, twin, strict=True):
        torch.testing.assert_close(gradient, expected)
        assert gradient.abs().sum() > 0


def test_banks_follow_the_last_stages():
    outputs, loss = _outputs(), _memory(momentum=0.3)
    before = loss.banks.clone()
    loss(outputs, LABELS, INDICES)
    for a, member in enumerate(outputs.embeddings):
        expected = before[a].clone()
        for i, index in enumerate(INDICES.tolist()):
            row = 0.3 * before[a, index] + 0.7 * member[-1][i].detach()
            expected[index] = row / row.norm()
        torch.testing.assert_close(loss.banks[a], expected)
    resumed = _memory()
    resumed.load_state_dict(loss.state_dict())
    assert torch.equal(resumed.banks, loss.banks)
    assert loss.state_dict().keys() == {'banks'}


def test_positives_are_of_the_class_and_negatives_of_others():
    """Every one of them, about equally often."""
    torch.manual_seed(0)
    loss = _memory(draws=None, num_negatives=8000, num_positives=8000)
    loss.banks = torch.arange(8.0).view(1, 8, 1)
    for index, label in enumerate(SAMPLE_LABELS.tolist()):
        rows = loss.compared_with(None, torch.tensor([index])).flatten().long()
        assert rows[0] == index
        for drawn, wanted in ((rows[1:8001], SAMPLE_LABELS.eq(label)),
                              (rows[8001:], SAMPLE_LABELS.ne(label))):
            shares = torch.bincount(drawn, minlength=8) / 8000
            # Standard deviation of a share is below 0.006.
            torch.testing.assert_close(shares, wanted / wanted.sum(), atol=0.03, rtol=0)


def test_bfloat16_autocast_with_memory():
    outputs, loss = _outputs(), _memory().float()
    half = outputs._replace(embeddings=[[e.bfloat16() for e in member]
                                        for member in outputs.embeddings])
    compared = loss.compared_with(LABELS, INDICES)
    exact = loss.layerwise(outputs, compared)
    with torch.autocast('cpu', torch.bfloat16):
        value = loss.layerwise(half._replace(weights=half.weights.float()), compared)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), exact, rtol=0.02, atol=0)


@pytest.mark.parametrize(('call', 'message'), [
    (lambda: _memory(num_negatives=0),
     'num_negatives 0 and num_positives 2: give numbers of at least 1'),
    (lambda: _memory(num_positives=0), 'num_positives 0'),
    (lambda: LMCLMemoryLoss(COHORT, torch.zeros(5).long()),
     'LMCLMemoryLoss needs the class of every training sample'),
    (lambda: _memory(dim=7)(_outputs(), LABELS, INDICES),
     r'2 members with embeddings of 7 .* got 2 of 4'),
    (lambda: _memory()(_outputs(), LABELS, INDICES[:2]), r'indices of shape \(2,\)')])
def test_what_memory_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()
