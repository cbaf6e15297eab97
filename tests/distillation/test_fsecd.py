"""FSECD against its formula in plain loops and in corner cases."""

import math

import pytest
import torch
from formulas import dot, randn, unit

import mmkd  # noqa: F401
from mmkd.distillation.losses.fsecd import FSECDLoss

LABELS = torch.tensor([2, 0, 2, 1, 2])


def _formula(student, teacher, positives, temperature):
    """The formula on nested lists; ``positives[i]`` is P(i)."""
    student, teacher = [unit(r) for r in student.tolist()], [unit(r) for r in teacher.tolist()]
    total = 0.0
    for i, s in enumerate(student):
        powers = [math.exp(dot(s, t) / temperature) for t in teacher]
        total -= sum(math.log(powers[p] / sum(powers)) for p in positives[i]) / len(positives[i])
    return total / len(student)


POSITIVES = {'instance': [[0], [1], [2], [3], [4]],
             'class': [[0, 2, 4], [1], [0, 2, 4], [3], [0, 2, 4]]}


@pytest.mark.parametrize('policy', POSITIVES)
def test_equals_the_formula(policy):
    student, teacher = randn(5, 3).requires_grad_(), randn(5, 3, seed=1).requires_grad_()
    loss = FSECDLoss(policy, temperature=0.3)
    value = loss(student, teacher, LABELS)
    assert value.shape == () and value.dtype == torch.float64
    assert value.item() == pytest.approx(_formula(student, teacher, POSITIVES[policy], 0.3))
    value.backward()
    assert student.grad.abs().sum() > 0 and teacher.grad is None
    fixed = teacher.detach()
    assert torch.autograd.gradcheck(lambda s: loss(s, fixed, LABELS), student)


def test_all_labels_equal():
    student, teacher = randn(3, 4), randn(3, 4, seed=1)
    value = FSECDLoss('class', 0.2)(student, teacher, torch.zeros(3, dtype=torch.long))
    assert value.item() == pytest.approx(_formula(student, teacher, [[0, 1, 2]] * 3, 0.2))


@pytest.mark.parametrize('policy', POSITIVES)
def test_zero_features_have_a_finite_loss_and_gradient(policy):
    student = randn(5, 3)
    student[1] = 0
    student.requires_grad_()
    teacher = randn(5, 3, seed=1)
    teacher[2] = 0
    value = FSECDLoss(policy)(student, teacher, LABELS)
    value.backward()
    assert value.item() == pytest.approx(_formula(student, teacher, POSITIVES[policy], 0.1))
    assert student.grad.isfinite().all() and not student.grad[1].any()


@pytest.mark.parametrize('policy', POSITIVES)
def test_under_autocast(policy):
    student, teacher = randn(5, 8), randn(5, 8, seed=1)
    half = [student.bfloat16(), teacher.bfloat16()]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value = FSECDLoss(policy)(*half, LABELS)
    assert value.dtype == torch.float32
    # Computed in float32: equal but for the rounding of the inputs themselves.
    exact = FSECDLoss(policy)(*(h.double() for h in half), LABELS)
    torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(exact, FSECDLoss(policy)(student, teacher, LABELS),
                               rtol=0.05, atol=0.02)


def test_what_it_refuses():
    with pytest.raises(ValueError, match=r"no policy 'clas': use 'instance' or 'class'"):
        FSECDLoss('clas')
    feature = torch.ones(2, 3)
    with pytest.raises(ValueError, match='got none'):
        FSECDLoss('class')(feature, feature)
    with pytest.raises(ValueError, match=r'shape \(2, 10\)'):
        FSECDLoss('class')(feature, feature, torch.ones(2, 10))
    with pytest.raises(ValueError, match=r'\(2, 3\) of the student with \(2, 4\)'):
        FSECDLoss()(feature, torch.ones(2, 4))
    with pytest.raises(ValueError, match='too small for FSECDLoss'):
        FSECDLoss()(feature[:1], feature[:1])
