"""The four CenterNet losses against hand-computed values and float64 loops."""

import math

import pytest
import torch

from mmkd.distillation.losses import AttentionLoss, HeatmapLoss, OffsetLoss, WidthHeightLoss


def _rand(*shape, seed=0):
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_heatmap_by_hand():
    student = torch.tensor([[[[0.5, 0.0], [0.25, 1.0]]]], requires_grad=True)
    teacher = torch.tensor([[[[0.0, 0.0], [0.75, 1.0]]]])
    loss = HeatmapLoss()(student, teacher)
    loss.backward()
    assert loss.item() == pytest.approx((0.25 + 0.25) / 4)
    # d/ds = 2 (s - t) / 4
    torch.testing.assert_close(student.grad, torch.tensor([[[[0.25, 0.0], [-0.25, 0.0]]]]))


@pytest.mark.parametrize('loss_type', [WidthHeightLoss, OffsetLoss])
def test_weighted_l1_by_hand(loss_type):
    # Two images of 1 x 2 cells, two classes; m is the larger class.
    heatmap = torch.tensor([[[[1.0, 0.0]], [[0.5, 0.5]]], [[[0.0, 0.0]], [[0.25, 0.0]]]])
    student = torch.tensor([[[[3.0, 1.0]], [[4.0, 1.0]]], [[[1.0, 9.0]], [[2.0, 9.0]]]],
                           requires_grad=True)
    teacher = torch.tensor([[[[1.0, 2.0]], [[4.0, 0.0]]], [[[2.0, 5.0]], [[2.0, 5.0]]]])
    loss = loss_type(gamma=1.0)(student, teacher, heatmap)
    loss.backward()
    first = (1.0 * (2 + 0) + 0.5 * (1 + 1)) / (2 * 1.5)
    second = 0.25 * (1 + 0) / (2 * 0.25)
    assert loss.item() == pytest.approx((first + second) / 2)
    # sign(s - t) * m / (2 sum m) / batch; the cell without weight has no gradient.
    expected = torch.tensor([[[[1 / 6, -0.5 / 6]], [[0.0, 0.5 / 6]]], [[[-0.25, 0.0]],
                                                                     [[0.0, 0.0]]]])
    torch.testing.assert_close(student.grad, expected)


@pytest.mark.parametrize('loss_type', [WidthHeightLoss, OffsetLoss])
def test_the_weight_is_the_square_of_the_heatmap(loss_type):
    heatmap = torch.tensor([[[[1.0, 0.5]], [[0.2, 0.1]]]])
    student, teacher = torch.zeros(1, 2, 1, 2), torch.tensor([[[[1.0, 3.0]], [[2.0, 5.0]]]])
    expected = (1.0 * (1 + 2) + 0.25 * (3 + 5)) / (2 * (1.0 + 0.25))
    assert loss_type()(student, teacher, heatmap).item() == pytest.approx(expected)


def test_weighted_l1_without_any_weight_is_zero():
    student = torch.ones(1, 2, 3, 3, requires_grad=True)
    loss = WidthHeightLoss()(student, torch.zeros(1, 2, 3, 3), torch.zeros(1, 4, 3, 3))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(student.grad, torch.zeros_like(student))


def test_attention_equals_its_formula_in_loops():
    student, teacher, temperature = _rand(2, 3, 2, 4), _rand(2, 3, 2, 4, seed=1) * 4 - 2, 0.5
    total = 0.0
    for b in range(2):
        spatial = {(y, x): math.exp(sum(abs(teacher[b, c, y, x]) for c in range(3)) / 3
                                    / temperature) for y in range(2) for x in range(4)}
        channel = [math.exp(sum(abs(teacher[b, c, y, x]) for y in range(2) for x in range(4)) / 8
                            / temperature) for c in range(3)]
        for c in range(3):
            for (y, x), value in spatial.items():
                attention = (8 * value / sum(spatial.values())) * (3 * channel[c] / sum(channel))
                total += attention * (teacher[b, c, y, x] - student[b, c, y, x]) ** 2
    expected = total / (2 * 3 * 2 * 4)
    assert AttentionLoss(temperature)(student, teacher).item() == pytest.approx(float(expected))


def test_attention_of_an_even_teacher_is_the_mean_square():
    teacher = torch.full((1, 4, 5, 5), -3.0)
    student = torch.full((1, 4, 5, 5), -1.0)
    assert AttentionLoss()(student, teacher).item() == pytest.approx(4.0)


CASES = {
    'heatmap': (HeatmapLoss(), lambda: (_rand(2, 3, 4, 4), _rand(2, 3, 4, 4, seed=1))),
    'wh': (WidthHeightLoss(), lambda: (_rand(2, 2, 4, 4), _rand(2, 2, 4, 4, seed=1),
                                       _rand(2, 3, 4, 4, seed=2))),
    'offset': (OffsetLoss(), lambda: (_rand(2, 2, 4, 4), _rand(2, 2, 4, 4, seed=1),
                                      _rand(2, 3, 4, 4, seed=2))),
    'attention': (AttentionLoss(), lambda: (_rand(2, 3, 4, 4), _rand(2, 3, 4, 4, seed=1))),
}


@pytest.mark.parametrize('name', CASES)
def test_every_loss(name):
    loss, make = CASES[name]
    student, teacher, *rest = make()
    student.requires_grad_()
    teacher.requires_grad_()
    rest = [r.requires_grad_() for r in rest]
    value = loss(student, teacher, *rest)
    assert value.shape == () and value.dtype == torch.float64 and value > 0
    value.backward()
    assert student.grad.abs().sum() > 0, 'the student learns'
    assert teacher.grad is None and all(r.grad is None for r in rest), 'the teacher does not'
    constants = [t.detach() for t in (teacher, *rest)]
    assert torch.autograd.gradcheck(lambda s: loss(s, *constants), student)
    assert loss(teacher.detach(), *constants).item() == 0, 'student equals teacher'
    half = loss(student.detach().bfloat16(), *(c.bfloat16() for c in constants))
    assert half.dtype == torch.float32
    torch.testing.assert_close(half.double(), value.detach(), rtol=0.05, atol=0.01)
