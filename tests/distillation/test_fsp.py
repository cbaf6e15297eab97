"""FSP against its formula in plain loops."""

import pytest
import torch
import torch.nn.functional as F
from formulas import dot, flat, randn, square_distance

import mmkd  # noqa: F401
from mmkd.distillation.losses.fsp import FSPLoss

CHANNELS = (2, 3, 2)


def _features(seed, size=(4, 3), batch=2):
    return [randn(batch, c, *size, seed=seed + c + place).requires_grad_()
            for place, c in enumerate(CHANNELS)]


def _flow(first, second):
    """Of one sample, nested lists of channels of cells."""
    return [[dot(a, b) / len(a) for b in second] for a in first]


def _formula(student, teacher):
    """Maps of one size."""
    total = 0.0
    for pair in range(len(student) - 1):
        ours, theirs = (flat([_flow(*(f[b].flatten(1).tolist() for f in side[pair:pair + 2]))
                              for b in range(len(side[0]))]) for side in (student, teacher))
        total += square_distance(ours, theirs) / len(ours)
    return total


def test_equals_the_formula():
    student, teacher = _features(0), _features(9)
    value = FSPLoss()(student, teacher)
    assert value.shape == () and value.dtype == torch.float64
    assert value.item() == pytest.approx(_formula(student, teacher))
    value.backward()
    assert all(f.grad.abs().sum() > 0 for f in student)
    assert all(f.grad is None for f in teacher)
    fixed = [f.detach() for f in teacher]
    assert torch.autograd.gradcheck(lambda *s: FSPLoss()(s, fixed), student)


def test_no_loss_where_the_flow_is_the_same():
    teacher = _features(0)
    assert FSPLoss()([f.detach().clone() for f in teacher], teacher).item() == 0
    cells = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    moved = [f.flatten(2)[..., cells].reshape(f.shape) for f in teacher]  # flows forget places
    assert FSPLoss()(moved, teacher).item() == pytest.approx(0, abs=1e-25)


def test_the_larger_of_two_layers_is_pooled_and_networks_may_differ_in_size():
    student = [randn(2, 2, 8, 8), randn(2, 3, 4, 4, seed=1), randn(2, 2, 2, 2, seed=2)]
    teacher = [randn(2, 2, 4, 4, seed=3), randn(2, 3, 4, 4, seed=4), randn(2, 2, 4, 4, seed=5)]
    expected = 0.0
    for pair, size in enumerate((4, 2)):
        ours = [F.adaptive_avg_pool2d(f, size) for f in student[pair:pair + 2]]
        theirs = teacher[pair:pair + 2]
        flows = [torch.einsum('biyx,bjyx->bij', *side) / side[0][0, 0].numel()
                 for side in (ours, theirs)]
        expected += (flows[0] - flows[1]).square().mean()
    torch.testing.assert_close(FSPLoss()(student, teacher), expected)


def test_precision_and_corners():
    student, teacher = ([f.detach().bfloat16() for f in _features(seed)] for seed in (0, 9))
    with torch.autocast('cpu', torch.bfloat16):
        value = FSPLoss()(student, teacher)
    assert value.dtype == torch.float32
    exact = _formula([f.double() for f in student], [f.double() for f in teacher])
    assert value.item() == pytest.approx(exact, rel=1e-5)
    zero = [torch.zeros(1, 2, 2, 2, requires_grad=True) for _ in range(2)]
    FSPLoss()(zero, [torch.ones(1, 2, 2, 2)] * 2).backward()
    assert all(f.grad.isfinite().all() for f in zero)


@pytest.mark.parametrize(('student', 'teacher', 'message'), [
    ([(2, 3, 4, 4)], [(2, 3, 4, 4)], r'two layers or more .*\[\(2, 3, 4, 4\)\]: tap='),
    ([(2, 3), (2, 3)], [(2, 3), (2, 3)], r'\[\(2, 3\), \(2, 3\)\]'),
    ([(2, 3, 4, 4)] * 2, [(2, 3, 4, 4), (2, 5, 4, 4)], r'equal channels .*AlignConnector'),
    ([(2, 3, 4, 4)] * 2, [(1, 3, 4, 4)] * 2, r'equal channels'),
])
def test_what_it_refuses(student, teacher, message):
    with pytest.raises(ValueError, match=message) as error:
        FSPLoss()([torch.zeros(s) for s in student], [torch.zeros(t) for t in teacher])
    assert '\n' not in str(error.value)
