"""Layer-wise MCL with memory banks: its formula in loops, its banks, whom it draws."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from formulas import dot, randn, soft_kl

import mmkd  # noqa: F401
from mmkd.distillation.losses.l_mcl import StageOutputs
from mmkd.distillation.losses.l_mcl_memory import LMCLMemoryLoss

SAMPLE_LABELS = torch.tensor([1, 0, 1, 2, 0, 1, 2, 0])
INDICES = torch.tensor([5, 1, 3])
LABELS = SAMPLE_LABELS[INDICES]
DRAWN = torch.tensor([[5, 0, 2, 1, 3, 6], [1, 4, 7, 0, 3, 2], [3, 6, 3, 0, 1, 7]])
"""The image, two of its class, three of others."""
STAGES, PARTS, DIM = (1, 2), ('vcl', 'soft_vcl', 'icl', 'soft_icl'), 4
COHORT = SimpleNamespace(members='ab')


def _loss(**options):
    return LMCLMemoryLoss(COHORT, SAMPLE_LABELS, **dict(
        dim=DIM, num_negatives=3, num_positives=2, temperature=0.5) | options).double()


def _only(part):
    return {name: float(name == part) for name in PARTS}


def _outputs():
    flat = iter([F.normalize(randn(3, DIM, seed=seed), dim=1).requires_grad_()
                 for seed in range(sum(STAGES))])
    weights = randn(3, 3, 3, seed=9).sigmoid()
    return StageOutputs(
        [[next(flat) for _ in range(count)] for count in STAGES],
        [[randn(3, 3, seed=20 + 5 * a + k) for k in range(count)]
         for a, count in enumerate(STAGES)],
        [randn(3, 3, seed=40 + a) for a in range(2)], (weights + weights.transpose(0, 1)) / 2)


def _fix(loss, monkeypatch):
    monkeypatch.setattr(loss.samples, 'of_the_same', lambda indices, number: DRAWN[:, 1:3])
    monkeypatch.setattr(loss.samples, 'of_others', lambda indices, number: DRAWN[:, 3:])
    return loss


# In plain Python, on nested lists.

def _row(vector, bank, drawn, tau=0.5):
    return [dot(vector, bank[j]) / tau for j in drawn]


def _contrast(row, positives):
    total = sum(math.exp(s) for s in row)
    return -sum(math.log(math.exp(s) / total) for s in row[:positives]) / positives


def _loop(outputs, banks):
    """As the authors' code: both embeddings' losses for ``(a, b)``, and again for ``(b, a)``."""
    stages = [(a, k) for a, count in enumerate(STAGES) for k in range(count)]
    vectors = {(a, k): outputs.embeddings[a][k].tolist() for a, k in stages}
    weights, parts = outputs.weights.tolist(), dict.fromkeys(PARTS, 0.0)
    for x, (a, k) in enumerate(stages):
        for y, (b, z) in enumerate(stages):
            if a == b:
                continue
            for i, drawn in enumerate(DRAWN.tolist()):
                w = weights[x][y][i] / 3
                h, g = vectors[a, k][i], vectors[b, z][i]
                across = [_row(h, banks[b], drawn), _row(g, banks[a], drawn)]
                own = [_row(h, banks[a], drawn[1:]), _row(g, banks[b], drawn[1:])]
                for first, second in ((0, 1), (1, 0)):
                    parts['icl'] += w * _contrast(across[first], 3)
                    parts['vcl'] += w * _contrast(own[first], 2)
                    parts['soft_icl'] += w * soft_kl(across[first], across[second], 3)
                    parts['soft_vcl'] += w * soft_kl(own[first], own[second], 3)
    return parts


@pytest.mark.parametrize('part', PARTS)
def test_each_part_equals_its_formula_in_loops(part, monkeypatch):
    outputs, loss = _outputs(), _fix(_loss(**_only(part)), monkeypatch)
    value = loss.layerwise(outputs, loss.compared_with(LABELS, INDICES))
    assert value.shape == () and value.dtype == torch.float64
    assert value.item() == pytest.approx(_loop(outputs, loss.banks.tolist())[part], rel=1e-10)


def test_the_whole_adds_the_losses_of_the_heads(monkeypatch):
    outputs = _outputs()
    loss = _fix(_loss(vcl=0.2, icl=0.3), monkeypatch)
    parts = _loop(outputs, loss.banks.tolist())
    expected = 0.2 * parts['vcl'] + 0.3 * parts['icl'] + parts['soft_vcl'] + parts['soft_icl']
    heads = [outputs.logits[1][0], *outputs.aggregated]
    expected += sum(F.cross_entropy(z, LABELS).item() for z in heads)
    expected += sum(soft_kl(s, t, 3) / 3 for member in outputs.logits
                    for joined in outputs.aggregated
                    for s, t in zip(member[-1].tolist(), joined.tolist(), strict=True))
    assert loss(outputs, LABELS, INDICES).item() == pytest.approx(expected)


def test_gradients_reach_embeddings_and_weights_and_stop_at_banks(monkeypatch):
    outputs, loss = _outputs(), _fix(_loss(soft_vcl=0.0, soft_icl=0.0), monkeypatch)
    compared = loss.compared_with(LABELS, INDICES)

    def call(weights, *flat):
        return loss.layerwise(StageOutputs([flat[:1], flat[1:]], [], [], weights), compared)

    flat = [e for member in outputs.embeddings for e in member]
    assert torch.autograd.gradcheck(call, (outputs.weights.requires_grad_(), *flat))
    loss(outputs, LABELS, INDICES).backward()
    assert all(e.grad.abs().sum() > 0 for e in flat) and not loss.banks.requires_grad


def test_what_is_imitated_is_a_constant(monkeypatch):
    outputs = _outputs()
    loss = _fix(_loss(vcl=0.0, icl=0.0), monkeypatch)
    compared = loss.compared_with(LABELS, INDICES)
    flat = [e for member in outputs.embeddings for e in member]
    own = torch.autograd.grad(loss.layerwise(outputs, compared), flat)
    fixed = [[e.detach() for e in member] for member in outputs.embeddings]
    twin = torch.autograd.grad(loss.layerwise(outputs, compared, fixed), flat)
    for gradient, expected in zip(own, twin, strict=True):
        torch.testing.assert_close(gradient, expected)
        assert gradient.abs().sum() > 0


def test_banks_follow_the_last_stages():
    outputs, loss = _outputs(), _loss(momentum=0.3)
    before = loss.banks.clone()
    loss(outputs, LABELS, INDICES)
    for a, member in enumerate(outputs.embeddings):
        expected = before[a].clone()
        for i, index in enumerate(INDICES.tolist()):
            row = 0.3 * before[a, index] + 0.7 * member[-1][i].detach()
            expected[index] = row / row.norm()
        torch.testing.assert_close(loss.banks[a], expected)
    resumed = _loss()
    resumed.load_state_dict(loss.state_dict())
    assert torch.equal(resumed.banks, loss.banks)
    assert loss.state_dict().keys() == {'banks'}


def test_positives_are_of_the_class_and_negatives_of_others():
    """Every one of them, about equally often."""
    torch.manual_seed(0)
    loss = _loss(num_negatives=8000, num_positives=8000)
    loss.banks = torch.arange(8.0).view(1, 8, 1)
    for index, label in enumerate(SAMPLE_LABELS.tolist()):
        rows = loss.compared_with(None, torch.tensor([index])).flatten().long()
        assert rows[0] == index
        for drawn, wanted in ((rows[1:8001], SAMPLE_LABELS.eq(label)),
                              (rows[8001:], SAMPLE_LABELS.ne(label))):
            shares = torch.bincount(drawn, minlength=8) / 8000
            # Standard deviation of a share is below 0.006.
            torch.testing.assert_close(shares, wanted / wanted.sum(), atol=0.03, rtol=0)


def test_bfloat16_autocast(monkeypatch):
    outputs, loss = _outputs(), _fix(_loss().float(), monkeypatch)
    half = outputs._replace(embeddings=[[e.bfloat16() for e in member]
                                        for member in outputs.embeddings])
    compared = loss.compared_with(LABELS, INDICES)
    exact = loss.layerwise(outputs, compared)
    with torch.autocast('cpu', torch.bfloat16):
        value = loss.layerwise(half._replace(weights=half.weights.float()), compared)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), exact, rtol=0.02, atol=0)


@pytest.mark.parametrize(('options', 'message'), [
    (dict(num_negatives=0), 'num_negatives 0 and num_positives 2: give numbers of at least 1'),
    (dict(num_positives=0), 'num_positives 0'),
])
def test_numbers_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        _loss(**options)


def test_what_it_refuses():
    with pytest.raises(ValueError, match='LMCLMemoryLoss needs the class of every training sample'):
        LMCLMemoryLoss(COHORT, torch.zeros(5, dtype=torch.long))
    with pytest.raises(ValueError, match=r'2 members with embeddings of 7 .* got 2 of 4'):
        _loss(dim=7)(_outputs(), LABELS, INDICES)
    with pytest.raises(ValueError, match=r'indices of shape \(2,\)'):
        _loss()(_outputs(), LABELS, INDICES[:2])
