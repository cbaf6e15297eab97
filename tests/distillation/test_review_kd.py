"""The hierarchical context loss against hand-computed values and plain loops."""

from itertools import product

import pytest
import torch
from formulas import flat, randn, square_distance

import mmkd  # noqa: F401
from mmkd.distillation.losses.review_kd import ReviewKDLoss


def _pooled(plane, size):
    """Mean over a ``size`` by ``size`` grid of a plane whose sides it divides."""
    rows, columns = len(plane) // size, len(plane[0]) // size
    return [[sum(plane[r * rows + y][c * columns + x]
                 for y, x in product(range(rows), range(columns))) / (rows * columns)
             for c in range(size)] for r in range(size)]


def _hcl(student, teacher, sizes):
    """``sizes``: the levels behind the full map."""
    planes = [f.flatten(0, 1).tolist() for f in (student, teacher)]

    def mse(ours, theirs):
        return square_distance(flat(ours), flat(theirs)) / len(flat(ours))

    total, norm = mse(*planes), 1.0
    for k, size in enumerate(sizes, 1):
        total += mse(*([_pooled(p, size) for p in ps] for ps in planes)) / 2 ** k
        norm += 1 / 2 ** k
    return total / norm


@pytest.mark.parametrize(('shape', 'sizes'), [
    ((2, 3, 8, 8), (4, 2, 1)), ((2, 3, 4, 8), (2, 1)), ((2, 3, 4, 4), (2, 1)),
    ((1, 2, 2, 2), (1,)), ((2, 3, 1, 1), ())])
def test_equals_the_formula(shape, sizes):
    student = randn(*shape).requires_grad_()
    teacher = randn(*shape, seed=1).requires_grad_()
    value = ReviewKDLoss()([student], [teacher])
    assert value.shape == () and value.dtype == torch.float64
    assert value.item() == pytest.approx(_hcl(student, teacher, sizes))
    value.backward()
    assert student.grad.abs().sum() > 0 and teacher.grad is None
    fixed = teacher.detach()
    assert torch.autograd.gradcheck(lambda s: ReviewKDLoss()([s], [fixed]), student)


def test_stages_are_summed_and_embeddings_are_maps_of_one_cell():
    student, teacher = ([randn(2, 3, 4, 4, seed=s), randn(2, 5, seed=s + 1)] for s in (0, 2))
    expected = (_hcl(student[0], teacher[0], (2, 1))
                + _hcl(student[1][:, :, None, None], teacher[1][:, :, None, None], ()))
    assert ReviewKDLoss()(student, teacher).item() == pytest.approx(expected)
    assert ReviewKDLoss()(teacher, teacher).item() == 0


def test_under_autocast():
    student, teacher = randn(2, 3, 8, 8).bfloat16(), randn(2, 3, 8, 8, seed=1).bfloat16()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value = ReviewKDLoss()([student], [teacher])
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(_hcl(student.double(), teacher.double(), (4, 2, 1)),
                                         rel=1e-5)


def test_shapes_that_differ_are_refused():
    maps = [torch.ones(2, 3, 4, 4)]
    with pytest.raises(ValueError, match=r'\(2, 3, 4, 4\).*\(2, 3, 2, 2\).*ReviewConnector'):
        ReviewKDLoss()(maps, [torch.ones(2, 3, 2, 2)])
    with pytest.raises(ValueError, match='ReviewConnector'):
        ReviewKDLoss()(maps, maps * 2)
