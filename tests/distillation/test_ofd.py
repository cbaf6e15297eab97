"""OFD against its formula in plain loops; its margins against the closed form of a normal."""

import math

import pytest
import torch
import torch.nn.functional as F
from formulas import randn

import mmkd  # noqa: F401
from mmkd.distillation.losses.ofd import OFDLoss


def _margin(values):
    below = [value for value in values if value < 0]
    return sum(below) / len(below) if below else 0.0


def _distance(student, teacher, margins):
    """One stage, on nested lists; margins per channel."""
    total = 0.0
    for b in range(len(student)):
        for c, margin in enumerate(margins):
            for s, t in zip(student[b, c].flatten().tolist(), teacher[b, c].flatten().tolist(),
                            strict=True):
                target = max(t, margin)
                total += 0 if s <= target <= 0 else (s - target) ** 2
    return total / len(student)


def _channel(feature, c):
    return feature[:, c].flatten().tolist()


def test_equals_the_formula():
    channels = (2, 3)
    student = [randn(2, c, 4, 3, seed=c).requires_grad_() for c in channels]
    teacher = [randn(2, c, 4, 3, seed=9 + c).requires_grad_() for c in channels]
    margins = [[_margin(_channel(t, c)) for c in range(t.shape[1])] for t in teacher]
    loss = OFDLoss(channels)
    value = loss(student, teacher)
    assert value.shape == () and value.dtype == torch.float64
    assert value.item() == pytest.approx(_distance(student[0], teacher[0], margins[0]) / 2
                                         + _distance(student[1], teacher[1], margins[1]))
    value.backward()
    assert all(s.grad.abs().sum() > 0 for s in student) and all(t.grad is None for t in teacher)
    fixed = [t.detach() for t in teacher]
    assert torch.autograd.gradcheck(lambda *s: loss(s, fixed), student)
    half = OFDLoss(channels)([s.bfloat16() for s in student], [t.bfloat16() for t in fixed])
    assert half.dtype == torch.float32
    torch.testing.assert_close(half.double(), value.detach(), rtol=0.02, atol=0.0)


def test_by_hand():
    teacher = torch.tensor([-3.0, -1.0, -1.0, 2.0, 0.0]).view(1, 1, 1, 5)
    # m = -5/3; targets -5/3, -1, -1, 2, 0
    student = torch.tensor([-9.0, -3.0, 1.0, -1.0, -1.0]).view(1, 1, 1, 5).requires_grad_()
    loss = OFDLoss([1])
    value = loss([student], [teacher])
    value.backward()
    assert loss.margins()[0].item() == pytest.approx(-5 / 3)
    assert value.item() == pytest.approx(0 + 0 + (1 + 1) ** 2 + (-1 - 2) ** 2 + 0)
    assert student.grad.flatten().tolist() == [0, 0, 4, -6, 0]


def test_margins_are_the_mean_of_all_negative_values_seen():
    loss = OFDLoss([2, 1])
    batches = [[randn(b, 2, 3, 3, seed=b) - 0.3, randn(b, 1, 2, 2, seed=b) + 9] for b in (1, 4)]
    for batch in batches:
        loss(batch, batch)
    for c in range(2):
        seen = [x for batch in batches for x in _channel(batch[0], c)]
        assert loss.margins()[0][c].item() == pytest.approx(_margin(seen), rel=1e-12)
    assert loss.margins()[1].tolist() == [0.0], 'never negative'
    before = loss.margins()
    loss.eval()([f - 5 for f in batches[0]], [f - 5 for f in batches[0]])
    torch.testing.assert_close(loss.margins(), before, rtol=0, atol=0)
    restored = OFDLoss([2, 1])
    restored.load_state_dict(loss.state_dict())
    torch.testing.assert_close(restored.margins(), before, rtol=0, atol=0)


def test_margins_of_a_normal_feature_are_the_closed_form_of_the_paper():
    mean, std = 0.4, 1.5
    feature = (randn(200, 1, 40, 40) * std + mean)
    loss = OFDLoss([1])
    loss([feature], [feature])
    density = math.exp(-(mean / std) ** 2 / 2) / math.sqrt(2 * math.pi)
    below = 0.5 * (1 - math.erf(mean / std / math.sqrt(2)))
    assert loss.margins()[0].item() == pytest.approx(mean - std * density / below, abs=0.01)


@pytest.mark.parametrize(('ours', 'theirs'), [(4, 2), (2, 4)])
def test_the_larger_map_is_pooled(ours, theirs):
    student, teacher = randn(2, 1, ours, ours), randn(2, 1, theirs, theirs, seed=1)
    margin = _margin(_channel(teacher, 0))  # before pooling
    small = [F.avg_pool2d(f, 2) if f.shape[2] == 4 else f for f in (student, teacher)]
    expected = _distance(*small, [margin])
    assert OFDLoss([1])([student], [teacher]).item() == pytest.approx(expected)


def test_student_equal_to_a_positive_teacher_and_zero_features():
    feature = torch.rand(1, 2, 3, 3)
    assert OFDLoss([2])([feature], [feature]).item() == 0
    zero = torch.zeros(1, 2, 3, 3, requires_grad=True)
    value = OFDLoss([2])([zero], [torch.zeros(1, 2, 3, 3)])
    value.backward()
    assert value.item() == 0 and zero.grad.isfinite().all()


def test_embeddings_are_refused():
    with pytest.raises(ValueError, match=r'compares maps .* \[\(1, 2\), \(1, 2\)\]: tap maps'):
        OFDLoss([2])([torch.ones(1, 2)], [torch.ones(1, 2)])


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match=r'built for \[2\].*\[3\] from the student.*OFDConnector'):
        OFDLoss([2])([torch.ones(1, 3, 2, 2)], [torch.ones(1, 2, 2, 2)])
