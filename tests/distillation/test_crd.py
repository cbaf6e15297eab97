"""CRD against its formula in plain loops, its memory and its negatives."""

import math

import pytest
import torch
from formulas import dot, linear, randn, unit

import mmkd  # noqa: F401
from mmkd.distillation.losses.crd import CRDLoss

LABELS = torch.tensor([1, 0, 1, 2, 0, 1, 2])


def _loss(labels=LABELS, negatives=None, **kwargs):
    torch.manual_seed(0)
    loss = CRDLoss(3, 4, labels, **dict(dim=5, num_negatives=6) | kwargs).double()
    if negatives is not None:
        loss._negatives = lambda indices: negatives
    return loss


def _embedded(layer, features):
    return [unit(linear(layer, row)) for row in features.tolist()]


def _direction(anchors, memory, pairs, temperature, partition=None):
    """``(L, Z)`` of one direction; the first of ``pairs[i]`` is the positive."""
    powers = [[math.exp(dot(a, memory[n]) / temperature) for n in row]
              for a, row in zip(anchors, pairs, strict=True)]
    count = len(powers) * len(powers[0])
    partition = partition or len(memory) * sum(map(sum, powers)) / count
    noise = (len(powers[0]) - 1) / len(memory)
    total = 0.0
    for positive, *negatives in powers:
        h = positive / partition / (positive / partition + noise)
        total -= math.log(h)
        total -= sum(math.log(1 - e / partition / (e / partition + noise)) for e in negatives)
    return total / len(powers), partition


def test_equals_the_formula():
    student, teacher = randn(2, 3).requires_grad_(), randn(2, 4, seed=1).requires_grad_()
    indices, negatives = torch.tensor([3, 0]), torch.tensor([[0, 1, 2, 4, 4, 5],
                                                             [1, 3, 3, 4, 6, 1]])
    loss = _loss(negatives=negatives, temperature=0.5, momentum=0.3)
    pairs = torch.cat([indices.unsqueeze(1), negatives], dim=1).tolist()
    memory = [loss.student_memory.tolist(), loss.teacher_memory.tolist()]
    z = [None, None]
    for step in range(2):  # Z is estimated in the first and kept in the second
        ours = _embedded(loss.student_embedding, student + step)
        theirs = _embedded(loss.teacher_embedding, teacher - step)
        forth, z[0] = _direction(ours, memory[1], pairs, 0.5, z[0])
        back, z[1] = _direction(theirs, memory[0], pairs, 0.5, z[1])
        value = loss(student + step, teacher - step, indices)
        assert value.shape == () and value.dtype == torch.float64
        assert value.item() == pytest.approx(forth + back)
        assert loss.partition.tolist() == pytest.approx(z)
        kept = loss.student_memory, loss.teacher_memory
        for own, rows, new in zip(kept, memory, (ours, theirs), strict=True):
            for index, row in zip(indices.tolist(), new, strict=True):
                rows[index] = unit([0.3 * m + 0.7 * a for m, a in
                                     zip(rows[index], row, strict=True)])
            torch.testing.assert_close(own, torch.tensor(rows).double(), rtol=1e-6, atol=1e-6)
    value.backward()
    assert teacher.grad is None and not loss.student_memory.requires_grad
    assert all(t.grad.abs().sum() > 0 for t in (student, *loss.parameters()))


def test_gradients():
    loss = _loss(negatives=torch.tensor([[0, 1, 2], [1, 3, 4]]), temperature=0.5)
    indices, teacher = torch.tensor([3, 0]), randn(2, 4, seed=1)
    loss.partition += 4.0
    state = {name: value.clone() for name, value in loss.named_buffers()}
    names = [name for name, _ in loss.named_parameters()]

    def call(feature, *values):
        parameters = dict(zip(names, values, strict=True))
        return torch.func.functional_call(loss, state | parameters, (feature, teacher, indices))

    assert torch.autograd.gradcheck(call, (randn(2, 3).requires_grad_(), *loss.parameters()))


def test_negatives_are_of_other_classes_and_uniform():
    torch.manual_seed(0)
    loss = _loss(num_negatives=20000)
    for index, label in enumerate(LABELS.tolist()):
        drawn = loss._negatives(torch.tensor([index]))
        assert drawn.shape == (1, 20000)
        shares = torch.bincount(drawn[0], minlength=len(LABELS)) / 20000
        others = LABELS.ne(label)
        assert not shares[~others].any()
        # Standard deviation of a share is below 0.0036.
        torch.testing.assert_close(shares[others], torch.full((int(others.sum()),),
                                                              1 / int(others.sum())),
                                   atol=0.015, rtol=0)


def test_labels_need_not_be_consecutive_nor_every_class_present():
    loss = _loss(torch.tensor([70, 7, 70, 70]))
    assert set(loss._negatives(torch.tensor([1])).flatten().tolist()) <= {0, 2, 3}
    assert set(loss._negatives(torch.tensor([0])).flatten().tolist()) == {1}


def test_a_sample_twice_in_a_batch_counts_once():
    loss = _loss(momentum=0.0)
    features = randn(3, 3)
    first = torch.tensor(_embedded(loss.student_embedding, features)[0]).double()
    loss(features, randn(3, 4), torch.tensor([2, 2, 0]))
    torch.testing.assert_close(loss.student_memory[2], first, rtol=1e-6, atol=1e-6)


def test_one_sample_zero_feature_and_resume():
    loss = _loss()
    student = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    value = loss(student, torch.zeros(1, 4, dtype=torch.float64), torch.tensor([5]))
    value.backward()
    assert value.isfinite() and student.grad.isfinite().all()
    resumed = _loss()
    resumed.load_state_dict(loss.state_dict())
    assert torch.equal(resumed.student_memory, loss.student_memory)
    assert torch.equal(resumed.partition, loss.partition) and resumed.partition.all()


def test_under_autocast():
    values = []
    student, teacher = randn(4, 3).bfloat16(), randn(4, 4, seed=1).bfloat16()
    for half in (True, False):
        loss = _loss(negatives=torch.tensor([[1, 2, 3]]).expand(4, 3))
        loss = loss.float() if half else loss
        features = (student, teacher) if half else (student.double(), teacher.double())
        with torch.autocast('cpu', dtype=torch.bfloat16, enabled=half):
            values.append(loss(*features, torch.arange(4)))
        assert loss.student_memory.dtype == (torch.float32 if half else torch.float64)
    assert values[0].dtype == torch.float32
    torch.testing.assert_close(values[0].double(), values[1], rtol=1e-5, atol=1e-5)


def test_what_it_refuses():
    with pytest.raises(ValueError, match='got 1 in labels of shape'):
        CRDLoss(3, 4, torch.zeros(5, dtype=torch.long))
    with pytest.raises(ValueError, match='class of every training sample'):
        CRDLoss(3, 4, torch.eye(5))
    with pytest.raises(ValueError, match=r'indices of shape \(3,\)'):
        _loss()(randn(2, 3), randn(2, 4), torch.arange(3))
    with pytest.raises(ValueError, match=r'\(2, 3, 1, 1\) of the student'):
        _loss()(randn(2, 3, 1, 1), randn(2, 4), torch.arange(2))
