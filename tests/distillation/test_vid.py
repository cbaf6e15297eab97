"""VID against its formula in plain loops."""

import math

import pytest
import torch
import torch.nn.functional as F
from formulas import randn

import mmkd  # noqa: F401
from mmkd.distillation.losses.vid import VIDLoss


def _loss(student=2, teacher=3, **kwargs):
    torch.manual_seed(0)
    return VIDLoss(student, teacher, **kwargs)


def _formula(loss, student, teacher):
    """Maps of one size, on nested lists."""
    weights = [layer.weight[:, :, 0, 0].tolist() for layer in loss.regressor[::2]]
    variances = [math.log(1 + math.exp(alpha)) + 1e-5 for alpha in loss.alpha.tolist()]
    terms = []
    for cell, target in zip(student.movedim(1, -1).flatten(0, 2).tolist(),
                            teacher.movedim(1, -1).flatten(0, 2).tolist(), strict=True):
        for depth, matrix in enumerate(weights):
            cell = [max(x, 0) for x in cell] if depth else cell
            cell = [sum(w * x for w, x in zip(row, cell, strict=True)) for row in matrix]
        terms += [(t - mu) ** 2 / (2 * v) + math.log(v) / 2
                  for t, mu, v in zip(target, cell, variances, strict=True)]
    return sum(terms) / len(terms)


def test_equals_the_formula():
    loss = _loss().double()
    with torch.no_grad():
        loss.alpha += torch.tensor([-4.0, 0.0, 2.0])
    student = randn(2, 2, 2, 3).requires_grad_()
    teacher = randn(2, 3, 2, 3, seed=1).requires_grad_()
    value = loss(student, teacher)
    assert value.shape == () and value.dtype == torch.float64
    assert value.item() == pytest.approx(_formula(loss, student, teacher))
    value.backward()
    assert teacher.grad is None
    assert all(t.grad.abs().sum() > 0 for t in (student, *loss.parameters()))


def test_gradients():
    loss = _loss().double()
    student, teacher = randn(2, 2, 2, 2).requires_grad_(), randn(2, 3, 2, 2, seed=1)
    names = [name for name, _ in loss.named_parameters()]

    def call(feature, *values):
        state = dict(zip(names, values, strict=True))
        return torch.func.functional_call(loss, state, (feature, teacher))

    assert torch.autograd.gradcheck(call, (student, *loss.parameters()))


def test_it_begins_with_the_variance_asked_for():
    # A mean of 0 and teachers of 2: 4 / (2 * 5) + log(5) / 2.
    value = _loss()(torch.zeros(1, 2, 1, 1), torch.full((1, 3, 1, 1), 2.0))
    assert value.item() == pytest.approx(0.4 + math.log(5) / 2)


@pytest.mark.parametrize(('ours', 'theirs'), [(4, 2), (2, 4)])
def test_the_larger_map_is_pooled(ours, theirs):
    loss = _loss().double()
    student, teacher = randn(2, 2, ours, ours), randn(2, 3, theirs, theirs, seed=1)
    small = [F.avg_pool2d(f, 2) if f.shape[2] == 4 else f for f in (student, teacher)]
    assert loss(student, teacher).item() == pytest.approx(_formula(loss, *small))


def test_under_autocast():
    loss = _loss()
    student, teacher = randn(2, 2, 4, 4).bfloat16(), randn(2, 3, 4, 4, seed=1).bfloat16()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value = loss(student, teacher)
    assert value.dtype == torch.float32
    exact = _formula(loss, student.double(), teacher.double())
    assert value.item() == pytest.approx(exact, rel=1e-5)


def test_zero_features():
    student = torch.zeros(1, 2, 2, 2, requires_grad=True)
    loss = _loss(init_variance=1.0)
    value = loss(student, torch.zeros(1, 3, 2, 2))
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-5)
    assert student.grad.isfinite().all()


def test_what_it_refuses():
    with pytest.raises(ValueError, match='init_variance above'):
        VIDLoss(2, 3, init_variance=0)
    with pytest.raises(ValueError, match=r'\(2, 2\)'):
        _loss()(torch.ones(2, 2), torch.ones(2, 3))
