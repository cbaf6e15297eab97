"""AB against its formula in plain loops."""

import pytest
import torch
import torch.nn.functional as F
from formulas import randn

import mmkd  # noqa: F401
from mmkd.distillation.losses.ab import ABLoss


def _distance(student, teacher, margin=1.0):
    """One stage."""
    total = 0.0
    for s, t in zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True):
        active = float(t > 0)
        total += (active * max(margin - s, 0) + (1 - active) * max(margin + s, 0)) ** 2
    return total / len(student)


def test_equals_the_formula():
    student = [randn(2, c, 4, 3, seed=c).requires_grad_() for c in (2, 3, 1)]
    teacher = [randn(2, c, 4, 3, seed=9 + c).requires_grad_() for c in (2, 3, 1)]
    loss = ABLoss(margin=0.7)
    value = loss(student, teacher)
    assert value.shape == () and value.dtype == torch.float64
    parts = [_distance(s, t, 0.7) for s, t in zip(student, teacher, strict=True)]
    assert value.item() == pytest.approx(parts[0] / 4 + parts[1] / 2 + parts[2])
    value.backward()
    assert all(s.grad.abs().sum() > 0 for s in student) and all(t.grad is None for t in teacher)
    fixed = [t.detach() for t in teacher]
    assert torch.autograd.gradcheck(lambda *s: loss(s, fixed), student)
    half = loss([s.bfloat16() for s in student], [t.bfloat16() for t in fixed])
    assert half.dtype == torch.float32
    torch.testing.assert_close(half.double(), value.detach(), rtol=0.02, atol=0.0)


def test_by_hand():
    teacher = torch.tensor([3.0, 0.1, 0.0, -9.0, 2.0, -1.0]).view(1, 1, 1, 6)
    student = torch.tensor([5.0, 0.0, -0.5, -1.0, -2.0, 3.0]).view(1, 1, 1, 6).requires_grad_()
    value = ABLoss()([student], [teacher])
    value.backward()
    assert value.item() == pytest.approx(0 + 1 + 0.25 + 0 + 9 + 16)
    assert student.grad.flatten().tolist() == [0, -2, 1, 0, -6, 8]


def test_a_student_beyond_the_margin_on_the_teachers_side_has_no_loss():
    teacher = randn(2, 3, 4, 4)
    assert ABLoss()([teacher.sign() * 1.5], [teacher]).item() == 0
    assert ABLoss()([teacher.sign() * 0.5], [teacher]).item() > 0
    torch.testing.assert_close(ABLoss()([randn(2, 3, 4, 4, seed=1)], [teacher]),
                               ABLoss()([randn(2, 3, 4, 4, seed=1)], [100 * teacher]))


@pytest.mark.parametrize(('ours', 'theirs'), [(4, 2), (2, 4)])
def test_the_larger_map_is_pooled(ours, theirs):
    student, teacher = randn(2, 1, ours, ours), randn(2, 1, theirs, theirs, seed=1)
    small = [F.avg_pool2d(f, 2) if f.shape[2] == 4 else f for f in (student, teacher)]
    assert ABLoss()([student], [teacher]).item() == pytest.approx(_distance(*small))


@pytest.mark.parametrize(('student', 'teacher', 'message'), [
    ((1, 2), (1, 2), r'compares maps .*\[\(1, 2\)\] of the student'),
    ((1, 3, 2, 2), (1, 2, 2, 2), r'\[\(1, 3, 2, 2\)\] .*\[\(1, 2, 2, 2\)\] .*OFDConnector'),
])
def test_features_that_do_not_fit_are_named(student, teacher, message):
    with pytest.raises(ValueError, match=message) as error:
        ABLoss()([torch.ones(student)], [torch.ones(teacher)])
    assert '\n' not in str(error.value)


def test_a_margin_that_is_none():
    with pytest.raises(ValueError, match='margin above 0, not 0'):
        ABLoss(margin=0)
