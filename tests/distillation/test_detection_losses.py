"""The four CenterNet losses against hand-computed values and float64 loops."""

import itertools
import math

import pytest
import torch

from mmkd.distillation.losses import (
    AttentionLoss,
    HeatmapLoss,
    OffsetLoss,
    PeakOffsetLoss,
    PeakWidthHeightLoss,
    PKDLoss,
    SoftFocalLoss,
    WidthHeightLoss,
)


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


def _objects():
    """Two images of 1 x 3 cells, two classes: a sure object, an unsure one, haze; and nothing."""
    heatmap = torch.tensor([[[[1.0, 0.0, 0.05]], [[0.5, 0.5, 0.0]]],
                            [[[0.0, 0.0, 0.0]], [[0.0, 0.09, 0.0]]]], dtype=torch.float64)
    student = torch.tensor([[[[3.0, 1.0, 7.0]], [[4.0, 1.0, 7.0]]],
                            [[[1.0, 9.0, 1.0]], [[2.0, 9.0, 1.0]]]], dtype=torch.float64)
    teacher = torch.tensor([[[[1.0, 2.0, 1.0]], [[5.0, 0.5, 1.0]]],
                            [[[2.0, 5.0, 1.0]], [[2.0, 5.0, 1.0]]]], dtype=torch.float64)
    return student, teacher, heatmap


def test_sizes_and_offsets_by_hand():
    student, teacher, heatmap = _objects()
    # m = 1, 0.25 and 0 (below 0.1); s = (1 + 5) / 2 and max(1, 1.25); sum m = 1.25.
    expected = (1.0 * (2 + 1) / 3 + 0.25 * (1 + 0.5) / 1.25) / (2 * 1.25)
    assert WidthHeightLoss()(student, teacher, heatmap).item() == pytest.approx(expected)
    expected = (1.0 * (2 + 1) + 0.25 * (1 + 0.5)) / (2 * 1.25)
    assert OffsetLoss()(student, teacher, heatmap).item() == pytest.approx(expected)
    assert OffsetLoss()(student, teacher, 0.2 * heatmap).item() == pytest.approx(
        (0.04 * 3 + 0.01 * 1.5) / 2), 'the norm is at least one object'


def test_sizes_at_the_maxima_by_hand():
    student, teacher, heatmap = _objects()
    # Maxima of 3x3 cells: 1.0 and 0.05 of the first class, 0.5 twice of the second; 0.09 in the
    # second image.
    total = 1.0 * 3 / 3 + 0.5 * 1.5 / 1.25 + 0.05 * 12 / 1 + 0.09 * 8 / 5
    assert PeakWidthHeightLoss()(student, teacher, heatmap).item() == pytest.approx(
        total / (1.0 + 0.5 + 0.05 + 0.09 + 1e-4))
    total = 1.0 * 3 + 0.5 * 1.5 + 0.05 * 12 + 0.09 * 8
    assert PeakOffsetLoss()(student, teacher, heatmap).item() == pytest.approx(
        total / (1.0 + 0.5 + 0.05 + 0.09 + 1e-4))


def test_an_image_without_objects_adds_nothing():
    student = torch.ones(1, 2, 3, 3, requires_grad=True)
    loss = WidthHeightLoss()(student, torch.zeros(1, 2, 3, 3), torch.zeros(1, 4, 3, 3))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(student.grad, torch.zeros_like(student))


def _cross_entropy(p, q):
    return -(q * math.log(p) + (1 - q) * math.log(1 - p))


def test_soft_focal_equals_its_formula_in_loops():
    student, teacher = 0.05 + 0.9 * _rand(2, 2, 3, 4), 0.05 + 0.9 * _rand(2, 2, 3, 4, seed=1)
    total, objects = 0.0, 0.0
    for b, c, y, x in itertools.product(range(2), range(2), range(3), range(4)):
        p, q = student[b, c, y, x].item(), teacher[b, c, y, x].item()
        total += (p - q) ** 2 * (_cross_entropy(p, q) - _cross_entropy(q, q))
        around = teacher[b, c, max(0, y - 1):y + 2, max(0, x - 1):x + 2]
        objects += q if q == around.max() and q >= 0.1 else 0.0
    assert objects > 1
    assert SoftFocalLoss()(student, teacher).item() == pytest.approx(total / objects)


def test_soft_focal_is_a_loss_per_object():
    """Neither more classes and background nor a second image like the first change it."""
    student, teacher = torch.full((1, 1, 4, 4), 0.02), torch.full((1, 1, 4, 4), 0.01)
    teacher[..., 1, 1] = 1.0
    wider = [torch.nn.functional.pad(m, (0, 9, 0, 9, 0, 5)) for m in (student, teacher)]
    value = SoftFocalLoss()(student, teacher)
    torch.testing.assert_close(SoftFocalLoss()(*wider), value)
    torch.testing.assert_close(SoftFocalLoss()(student.repeat(2, 1, 1, 1),
                                               teacher.repeat(2, 1, 1, 1)), value)


def test_balanced_soft_focal_gives_each_class_the_same_say():
    # One cell each: six objects of class 0, two of class 1, none of class 2, all with score 1.
    teacher = torch.zeros(8, 3, 1, 1, dtype=torch.float64)
    teacher[:6, 0] = teacher[6:, 1] = 1
    student = torch.full_like(teacher, 0.5)
    plain = [0.25 * math.log(2) * 8] * 3  # each class has 8 cells that are wrong by 0.5
    assert SoftFocalLoss()(student, teacher).item() == pytest.approx(sum(plain) / 8)
    weights = 8 / (2 * 6), 8 / (2 * 2), 1
    expected = sum(w * part for w, part in zip(weights, plain, strict=True)) / 8
    assert SoftFocalLoss(balance=True)(student, teacher).item() == pytest.approx(expected)


def test_soft_focal_survives_a_sigmoid_that_rounds():
    student = torch.tensor([0.0, 1.0, 1.0, 0.0]).view(1, 1, 2, 2).requires_grad_()
    loss = SoftFocalLoss()(student, torch.tensor([1.0, 0.0, 1.0, 0.0]).view(1, 1, 2, 2))
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all()


def test_pkd_is_one_minus_the_correlation():
    student, teacher = _rand(3, 2, 4, 5), _rand(3, 2, 4, 5, seed=1)
    correlations = [torch.corrcoef(torch.stack((student[:, c].flatten(),
                                                teacher[:, c].flatten())))[0, 1] for c in range(2)]
    count = 3 * 4 * 5  # the standard deviation has one less
    expected = (count - 1) / count * (1 - sum(correlations).item() / 2)
    assert PKDLoss()(student, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_pkd_of_a_constant_channel_has_a_finite_gradient():
    student = torch.zeros(2, 1, 3, 3, requires_grad=True)
    PKDLoss()(student, torch.rand(2, 1, 3, 3)).backward()
    assert student.grad.isfinite().all()


def test_pkd_of_other_channels_names_the_connector():
    with pytest.raises(ValueError, match='ConvConnector'):
        PKDLoss()(torch.rand(1, 2, 3, 3), torch.rand(1, 4, 3, 3))


@pytest.mark.parametrize('loss', [HeatmapLoss(), AttentionLoss(), SoftFocalLoss(), PKDLoss()])
def test_image_weights_are_factors_of_images(loss):
    student, teacher = _rand(2, 2, 4, 4), _rand(2, 2, 4, 4, seed=1)
    teacher[:, :, 0, 0] = 1.0
    parts = [loss(student, teacher, image_weights=torch.tensor(w))
             for w in ([1.0, 0.0], [0.0, 1.0], [0.3, 2.0])]
    torch.testing.assert_close(parts[0] + parts[1], loss(student, teacher))
    torch.testing.assert_close(parts[2], 0.3 * parts[0] + 2 * parts[1], rtol=1e-6, atol=0)


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


@pytest.mark.parametrize('loss', [
    HeatmapLoss(), WidthHeightLoss(), OffsetLoss(), PeakWidthHeightLoss(), PeakOffsetLoss(),
    SoftFocalLoss(), PKDLoss(), AttentionLoss()], ids=lambda loss: type(loss).__name__)
def test_every_loss(loss):
    scores = [0.05 + 0.9 * _rand(2, 3, 4, 4, seed=seed) for seed in range(3)]
    if 'WidthHeight' in type(loss).__name__ or 'Offset' in type(loss).__name__:
        features = _rand(2, 2, 4, 4), _rand(2, 2, 4, 4, seed=1), scores[2]
    else:
        features = scores[:2]
    student, teacher, *rest = (one.requires_grad_() for one in features)
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
