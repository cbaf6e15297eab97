"""The parameter-free classification losses against values computed by hand."""

import math

import pytest
import torch

import mmkd  # noqa: F401
from mmkd.distillation.losses.attention_transfer import AttentionTransferLoss
from mmkd.distillation.losses.dist import DISTLoss
from mmkd.distillation.losses.dkd import DKDLoss
from mmkd.distillation.losses.fitnet import FitNetLoss
from mmkd.distillation.losses.kd import KDLoss
from mmkd.distillation.losses.nst import NSTLoss
from mmkd.distillation.losses.pkt import PKTLoss
from mmkd.distillation.losses.rkd import RKDLoss
from mmkd.distillation.losses.similarity_preserving import SimilarityPreservingLoss


def _randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def test_kd_by_hand():
    student, teacher = torch.zeros(1, 2), torch.tensor([[2 * math.log(3), 0.0]])
    divergence = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)  # of (3/4, 1/4) from (1/2, 1/2)
    assert KDLoss(temperature=2)(student, teacher).item() == pytest.approx(4 * divergence)


def test_fitnet_by_hand():
    student, teacher = torch.tensor([[1.0, 2.0]]), torch.tensor([[4.0, 2.0]])
    assert FitNetLoss()(student, teacher).item() == pytest.approx(9 / 2)


def test_attention_by_hand():
    # One channel of 1 x 2 cells: (3, -4) / 5 against (0, 5) / 5.
    student, teacher = torch.tensor([[[[3.0, -4.0]]]]), torch.tensor([[[[0.0, 5.0]]]])
    assert AttentionTransferLoss(p=1)(student, teacher).item() == pytest.approx(0.4 / 2)
    # Cubes: (27, 64) / sqrt(27^2 + 64^2) against (0, 1).
    norm = math.hypot(27, 64)
    expected = ((27 / norm) ** 2 + (1 - 64 / norm) ** 2) / 2
    assert AttentionTransferLoss(p=3)(student, teacher).item() == pytest.approx(expected)


def test_rkd_by_hand():
    # On a line, in the same order: equal angles. Distances 1 3 2 over 2 against 1 2 1 over 4/3.
    line = torch.tensor([[0.0], [1.0], [3.0]])
    distance = 2 * (0.25 ** 2 / 2 + 0 + 0.25 ** 2 / 2) / 9
    loss = RKDLoss()(line, torch.tensor([[0.0], [1.0], [2.0]]))
    assert loss.item() == pytest.approx(25 * distance)
    # Cosines at the corners of half a square, against those on the line.
    triangle = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    root = math.sqrt(0.5)
    angle = 2 * ((1 - 0.5) + (1 + root - 0.5) + (1 - root) ** 2 / 2) / 27
    assert RKDLoss(0.0, 50.0)(triangle, line).item() == pytest.approx(50 * angle)


def test_rkd_leaves_coinciding_samples_out_of_the_mean_distance():
    student, teacher = torch.tensor([[0.0], [0.0], [2.0]]), torch.tensor([[0.0], [1.0], [2.0]])
    # 0 1 1 against 3/4 3/2 3/4
    expected = 2 * (0.75 ** 2 + 0.5 ** 2 + 0.25 ** 2) / 2 / 9
    assert RKDLoss(1.0, 0.0)(student, teacher).item() == pytest.approx(expected)


def test_dkd_by_hand():
    student, teacher = torch.zeros(1, 3), torch.tensor([[0.5, 0.375, 0.125]]).log()
    tckd = 0.5 * math.log(1.5) + 0.5 * math.log(0.75)  # of (1/2, 1/2) from (1/3, 2/3)
    nckd = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)  # of (3/4, 1/4) from (1/2, 1/2)
    loss = DKDLoss(alpha=2.0, beta=3.0, temperature=1.0)(student, teacher, torch.tensor([0]))
    assert loss.item() == pytest.approx(2 * tckd + 3 * nckd)


def test_dkd_adds_up_to_kd():
    student, teacher = _randn(1, 6), _randn(1, 6, seed=1)
    rest = 1 - teacher.softmax(1)[0, 4].item()
    parts = DKDLoss(alpha=1.0, beta=rest, temperature=1.0)(student, teacher, torch.tensor([4]))
    assert parts.item() == pytest.approx(KDLoss(temperature=1.0)(student, teacher).item())


def test_dkd_refuses_mixed_labels():
    with pytest.raises(ValueError, match=r'labels of shape \(4, 5\)'):
        DKDLoss()(torch.zeros(4, 5), torch.zeros(4, 5), torch.zeros(4, 5))


def test_dkd_of_a_single_class_in_the_batch():
    student, teacher = _randn(4, 5), _randn(4, 5, seed=1)
    parts = [DKDLoss()(student[i:i + 1], teacher[i:i + 1], torch.tensor([3])) for i in range(4)]
    whole = DKDLoss()(student, teacher, torch.full((4,), 3))
    torch.testing.assert_close(whole, torch.stack(parts).mean())


def test_logits_of_any_size():
    student = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    teacher = torch.tensor([[-1e4, 1e4, 0.0]])
    # T = 4: the teacher is sure of class 1, to which the student gives the log-probability -5000;
    # next to class 2 alone -2500, which is also the log-probability it gives to classes 1 and 2.
    kd, dkd = KDLoss()(student, teacher), DKDLoss()(student, teacher, torch.tensor([0]))
    assert kd.item() == pytest.approx(16 * 5000)
    assert dkd.item() == pytest.approx(16 * (2500 + 8 * 2500))
    (kd + dkd).backward()
    assert student.grad.isfinite().all()


def test_similarity_by_hand():
    # Identity against rows of (1, 1) / sqrt(2).
    student, teacher = torch.eye(2), torch.ones(2, 1)
    expected = 2 * ((1 - math.sqrt(0.5)) ** 2 + 0.5) / 4
    assert SimilarityPreservingLoss()(student, teacher).item() == pytest.approx(expected)


def test_nst_by_hand():
    student, teacher = torch.tensor([[[[3.0, 4.0]]]]), torch.tensor([[[[2.0, 0.0]]]])
    assert NSTLoss()(student, teacher).item() == pytest.approx(1 + 1 - 2 * 0.6 ** 2)


def test_pkt_by_hand():
    # Neighbours (2/3, 1/3) against (1/2, 1/2), in both rows.
    expected = 2 * (0.5 * math.log(0.75) + 0.5 * math.log(1.5)) / 4
    assert PKTLoss()(torch.eye(2), torch.ones(2, 1)).item() == pytest.approx(expected, rel=1e-4)


def test_dist_by_hand():
    student = torch.tensor([[0.9, 0.1], [0.2, 0.8]]).log()
    teacher = torch.tensor([[0.6, 0.4], [0.7, 0.3]]).log()
    # Two numbers correlate by 1 or -1: rows 1 and -1, both columns -1.
    loss = DISTLoss(beta=3.0, gamma=5.0)(student, teacher)
    assert loss.item() == pytest.approx(3 * (0 + 2) / 2 + 5 * 2, rel=1e-4)


def test_dist_of_one_sample_has_no_columns():
    student = torch.tensor([[0.5, 0.3, 0.2]]).log() * 2
    teacher = torch.tensor([[0.5, 0.2, 0.3]]).log() * 2
    # 30 times the centred rows: (5, -1, -4) and (5, -4, -1); rho = 33 / 42.
    loss = DISTLoss(temperature=2.0)(student, teacher)
    assert loss.item() == pytest.approx(4 * (1 - 33 / 42), rel=1e-5)
