"""BYOT, DDGSD: their formulas in loops, gradients, precision, corners."""

import math

import pytest
import torch
from formulas import (
    assert_float32_under_autocast,
    cross_entropy,
    kl,
    mean,
    randn,
    soft_kl,
    softmax,
    square_distance,
)

import mmkd  # noqa: F401
from mmkd.distillation.losses.byot import BYOTLoss
from mmkd.distillation.losses.ddgsd import DDGSDLoss

LABELS = torch.tensor([2, 0, 2, 1])


# The formulas in plain Python, on nested lists.

def byot_loop(heads, feature, logits):
    total = 0.0
    for own_feature, own_logits in heads:
        for b, label in enumerate(LABELS.tolist()):
            total += (0.7 * -math.log(softmax(own_logits[b])[label])
                      + 0.3 * soft_kl(own_logits[b], logits[b], 3)
                      + 0.03 * square_distance(own_feature[b], feature[b]) / len(feature[b]))
    return total / len(LABELS)


def ddgsd_loop(features, logits):
    half = len(logits) // 2
    total = 0.0
    for a, b in zip(logits[:half], logits[half:], strict=True):
        a, b = softmax(a, 4), softmax(b, 4)
        total += 16 * (kl(a, b) + kl(b, a)) / half
    means = [[mean(column) for column in zip(*rows, strict=True)]
             for rows in (features[:half], features[half:])]
    return total + 5e-4 * square_distance(*means)


def _byot(dtype=torch.float64, heads=2):
    heads = [(randn(4, 6, seed=i, dtype=dtype).requires_grad_(),
              randn(4, 3, seed=i + 10, dtype=dtype).requires_grad_()) for i in range(heads)]
    return heads, [randn(4, 6, seed=20, dtype=dtype), 3 * randn(4, 3, seed=21, dtype=dtype)]


def test_byot_equals_its_formula_in_loops():
    heads, deepest = _byot()
    expected = byot_loop([[value.tolist() for value in head] for head in heads],
                         *(value.tolist() for value in deepest))
    value = BYOTLoss()(heads, deepest, LABELS)
    assert value.shape == () and value.item() == pytest.approx(expected, rel=1e-10)
    stages = [randn(4, 2, 8, 8), randn(4, 2, 4, 4)]
    assert torch.equal(BYOTLoss()(heads, [*stages, *deepest], LABELS), value)


def test_byot_leaves_the_deepest_classifier_alone():
    heads, deepest = _byot()
    flat = [value for head in heads for value in head]

    def call(*values):
        return BYOTLoss()(list(zip(values[::2], values[1::2], strict=True)), deepest, LABELS)

    assert torch.autograd.gradcheck(call, flat)
    for value in deepest:
        value.requires_grad_()
    call(*flat).backward()
    assert all(value.grad.abs().sum() > 0 for value in flat)
    assert all(value.grad is None for value in deepest)


def test_byot_without_the_deepest_is_deep_supervision():
    heads, deepest = _byot()
    value = BYOTLoss(alpha=0.0, hint_weight=0.0)(heads, deepest, LABELS)
    expected = sum(cross_entropy(logits.tolist(), LABELS.tolist()) for _, logits in heads)
    assert value.item() == pytest.approx(expected)


def test_ddgsd_equals_its_formula_in_loops():
    features, logits = randn(8, 6), randn(8, 5, seed=1)
    value = DDGSDLoss()([features, logits])
    assert value.item() == pytest.approx(ddgsd_loop(features.tolist(), logits.tolist()), rel=1e-10)
    assert torch.equal(DDGSDLoss()([features, logits], LABELS), value)
    twice = [torch.cat([v[:4], v[:4]]) for v in (features, logits)]
    assert DDGSDLoss()(twice).item() == pytest.approx(0, abs=1e-12)
    moved = [features, torch.cat([logits[:4], logits[:4]])]  # MMD alone
    means = features[:4].mean(0) - features[4:].mean(0)
    assert DDGSDLoss(mmd_weight=2.0)(moved).item() == pytest.approx(2 * means.dot(means).item())


def test_ddgsd_gradient():
    """Each divergence moves the view behind, the MMD both."""
    features, logits = randn(8, 6).requires_grad_(), randn(8, 5, seed=1).requires_grad_()
    DDGSDLoss()([features, logits]).backward()
    log_p = logits.detach().div(4).log_softmax(1)
    difference = log_p.exp() - log_p.exp().roll(4, dims=0)
    # d/dz of T^2 / B * KL(q || softmax(z / T)) is T / B * (softmax(z / T) - q).
    torch.testing.assert_close(logits.grad, 4 / 4 * difference)
    means = features.detach()[:4].mean(0) - features.detach()[4:].mean(0)
    expected = 5e-4 * 2 / 4 * torch.cat([means.expand(4, -1), -means.expand(4, -1)])
    torch.testing.assert_close(features.grad, expected)
    fixed = logits.detach()
    assert torch.autograd.gradcheck(lambda f: DDGSDLoss(mmd_weight=1.0)([f, fixed]), features)


CALLS = {
    'BYOT': lambda dtype: (BYOTLoss(), (*_byot(dtype), LABELS)),
    'DDGSD': lambda dtype: (DDGSDLoss(), ([randn(8, 6, dtype=dtype),
                                           randn(8, 5, seed=1, dtype=dtype)],)),
}
every_loss = pytest.mark.parametrize('name', CALLS)


@every_loss
def test_bfloat16_autocast(name):
    loss, values = CALLS[name](torch.float32)
    assert_float32_under_autocast(lambda given: loss(*given), values, rtol=0.03)


@pytest.mark.parametrize('loss', [BYOTLoss(), DDGSDLoss()], ids=['BYOT', 'DDGSD'])
@pytest.mark.parametrize('change', [lambda v: v * 0, lambda v: v * 1e4, lambda v: v * 1e-15,
                                    lambda v: v[:1].expand_as(v)])
def test_corners_of_lists_are_finite(loss, change):
    leaves = [randn(2, 6, dtype=torch.float32).requires_grad_(),
              randn(2, 5, seed=1, dtype=torch.float32).requires_grad_()]
    values = [change(leaf) for leaf in leaves]
    labels = torch.tensor([3, 3])
    value = loss([values], values, labels) if isinstance(loss, BYOTLoss) else loss(values)
    value.backward()
    assert value.isfinite() and all(leaf.grad.isfinite().all() for leaf in leaves)
    one = [value[:1].detach() for value in values]
    assert not isinstance(loss, BYOTLoss) or loss([one], one, labels[:1]).isfinite()


@pytest.mark.parametrize(('call', 'message'), [
    (lambda: DDGSDLoss()([torch.zeros(3, 5), torch.zeros(3, 2)]), 'views=2'),
    (lambda: DDGSDLoss()([torch.zeros(4, 5, 2, 2), torch.zeros(4, 2)]), r'backbone\.embedding'),
    (lambda: DDGSDLoss()([torch.zeros(4, 5)]), 'two views'),
    (lambda: DDGSDLoss()([torch.zeros(4, 5), torch.zeros(4, 2)], LABELS), 'views=2'),
    (lambda: BYOTLoss(alpha=1.5), 'from 0 to 1'),
    (lambda: BYOTLoss()([(torch.zeros(4, 5), torch.zeros(4, 3))],
                        [torch.zeros(4, 6), torch.zeros(4, 3)], LABELS), 'AuxiliaryClassifiers')])
def test_what_does_not_fit_is_one_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert '\n' not in str(error.value)
