"""Connectors: shapes, the second implementation of the fusion, and what cannot be joined."""

import pytest
import torch
import torch.nn.functional as F

import mmkd  # noqa: F401
from mmkd.distillation.branch import Branch
from mmkd.distillation.connectors import (
    ConvConnector,
    LinearConnector,
    MLPConnector,
    OFDConnector,
    RegressorConnector,
    ReviewConnector,
)
from mmkd.distillation.losses import ReviewKDLoss
from mmkd.errors import UserError
from mmkd.registry import MODELS


def _randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _learns(connector, output):
    outputs = output if isinstance(output, list) else [output]
    sum((o * _randn(*o.shape, seed=7)).sum() for o in outputs).backward()
    return all(p.grad is not None for p in connector.parameters())


@pytest.mark.parametrize('name', ['ConvConnector', 'MLPConnector', 'OFDConnector'])
def test_maps_keep_their_size(name):
    connector = MODELS.build(dict(type=name, student_channels=2, teacher_channels=5))
    output = connector(_randn(3, 2, 4, 6))
    assert output.shape == (3, 5, 4, 6) and _learns(connector, output)


def test_ofd_connector_is_a_normalised_linear_map_per_cell():
    connector, feature = OFDConnector(2, 3), _randn(4, 2, 3, 3)
    weight = connector.conv.weight[:, :, 0, 0]
    mapped = torch.einsum('oc,bcyx->boyx', weight, feature)
    mean = mapped.mean((0, 2, 3), keepdim=True)
    variance = mapped.var((0, 2, 3), unbiased=False, keepdim=True)
    torch.testing.assert_close(connector(feature), (mapped - mean) / (variance + 1e-5).sqrt(),
                               rtol=1e-4, atol=1e-5)
    assert (connector(feature) < 0).any(), 'no ReLU behind it'


def test_mlp_connector_is_two_linear_maps_per_cell():
    connector, feature = MLPConnector(2, 3), _randn(4, 2, 3, 3)
    first, last = connector.layers[0], connector.layers[2]
    hidden = (torch.einsum('oc,bcyx->byxo', first.weight[:, :, 0, 0], feature)
              + first.bias).clamp(min=0)
    value = torch.einsum('oc,byxc->byxo', last.weight[:, :, 0, 0], hidden) + last.bias
    torch.testing.assert_close(connector(feature), value.permute(0, 3, 1, 2))


@pytest.mark.parametrize('hidden', [None, 7])
def test_linear_connector(hidden):
    connector = MODELS.build(dict(type='LinearConnector', student_channels=4, teacher_channels=3,
                                  hidden_channels=hidden))
    feature = _randn(2, 4)
    output = connector(feature)
    expected, *rest = (layer for layer in connector.layers if isinstance(layer, torch.nn.Linear))
    value = feature @ expected.weight.t() + expected.bias
    for layer in rest:
        value = value.clamp(min=0) @ layer.weight.t() + layer.bias
    assert len(rest) == (hidden is not None) and output.shape == (2, 3)
    torch.testing.assert_close(output, value)
    assert _learns(connector, output)


@pytest.mark.parametrize(('student', 'teacher', 'kernel'), [
    ((8, 8), (4, 4), (3, 3)), ((4, 4), (8, 8), (4, 4)), ((8, 8), (8, 8), (1, 1)),
    ((7, 8), (5, 8), (3, 1)), ((4, 6), (2, 3), (3, 3)), ((2, 2), (1, 1), (3, 3))])
def test_regressor_reaches_the_size_of_the_teacher(student, teacher, kernel):
    connector = MODELS.build(dict(type='RegressorConnector', student_channels=2,
                                  teacher_channels=5, student_size=student, teacher_size=teacher))
    output = connector(_randn(3, 2, *student))
    assert output.shape == (3, 5, *teacher) and output.min() == 0
    assert connector.conv.kernel_size == kernel and _learns(connector, output)


@pytest.mark.parametrize(('student', 'teacher'), [((4, 4), (6, 6)), ((2, 2), (8, 8)),
                                                  ((), (4, 4)), ((), ()), ((8, 4), (4, 8))])
def test_regressor_names_both_shapes_that_it_cannot_join(student, teacher):
    with pytest.raises(UserError) as error:
        RegressorConnector(2, 5, student, teacher)
    shapes = [str(('batch', 2, *student)), str(('batch', 5, *teacher))]
    assert all(shape in str(error.value) for shape in shapes)


def test_features_of_the_wrong_kind_are_refused():
    for connector in (ConvConnector(2, 5), MLPConnector(2, 5), OFDConnector(2, 5)):
        with pytest.raises(UserError, match=r'shape \(3, 2\).*LinearConnector'):
            connector(_randn(3, 2))
    with pytest.raises(UserError, match=r'shape \(3, 2, 4, 4\).*ConvConnector'):
        LinearConnector(2, 5)(_randn(3, 2, 4, 4))


def _review():
    torch.manual_seed(0)
    return MODELS.build(dict(type='ReviewConnector', student_channels=[2, 3, 4],
                             teacher_channels=[5, 6, 7]))


SIZES = [(8, 8), (4, 4), ()]
STUDENT = [_randn(2, 2, 8, 8), _randn(2, 3, 4, 4, seed=1), _randn(2, 4, seed=2)]


def _norm(x):
    """Batch norm as it begins, in training."""
    return (x - x.mean((0, 2, 3), keepdim=True)) / (
        x.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()


def test_review_fuses_from_the_deepest_to_the_finest():
    connector = _review()
    reduced = [_norm(torch.einsum('oc,bcyx->boyx', layer[0].weight[:, :, 0, 0],
                                  f.view(*f.shape[:2], *(f.shape[2:] or (1, 1)))))
               for layer, f in zip(connector.reduce, STUDENT, strict=True)]
    fused = [None, None, reduced[2]]
    for stage in (1, 0):
        factor = reduced[stage].shape[2] // fused[stage + 1].shape[2]
        deeper = fused[stage + 1].repeat_interleave(factor, 2).repeat_interleave(factor, 3)
        layer = connector.attend[stage]
        scores = torch.einsum('oc,bcyx->boyx', layer.weight[:, :, 0, 0],
                              torch.cat([reduced[stage], deeper], 1)) + layer.bias.view(1, 2, 1, 1)
        ours, theirs = (1 / (1 + torch.exp(-scores))).unbind(1)
        fused[stage] = ours.unsqueeze(1) * reduced[stage] + theirs.unsqueeze(1) * deeper
    expected = [_norm(F.conv2d(y, layer[0].weight, padding=1))
                for layer, y in zip(connector.expand, fused, strict=True)]
    outputs = connector(STUDENT, SIZES)
    assert [tuple(o.shape) for o in outputs] == [(2, 5, 8, 8), (2, 6, 4, 4), (2, 7)]
    for output, value in zip(outputs, expected, strict=True):
        torch.testing.assert_close(output, value.view_as(output), rtol=1e-3, atol=1e-4)
    assert _learns(connector, outputs)


def test_review_reaches_other_sizes_and_at_most_512_channels():
    outputs = _review()(STUDENT, [(16, 16), (4, 4), (2, 2)])
    assert [tuple(o.shape) for o in outputs] == [(2, 5, 16, 16), (2, 6, 4, 4), (2, 7, 2, 2)]
    wide = ReviewConnector([16, 1024], [16, 32])
    assert wide.reduce[0][0].out_channels == 512


def test_review_follows_sizes_that_change_from_batch_to_batch():
    def pyramid(height, width, seed):
        return [_randn(2, c, height // d, width // d, seed=seed + d)
                for c, d in ((3, 1), (4, 2), (4, 4))]

    torch.manual_seed(0)
    first = pyramid(8, 8, 0), pyramid(8, 8, 9)
    branch = Branch(dict(type='ReviewKDLoss'), dict(type='ReviewConnector'), *first)
    branch.train()
    for height, width in ((8, 8), (12, 20), (4, 8)):
        student, teacher = pyramid(height, width, 1), pyramid(height, width, 5)
        # Twice the height is what a teacher of half the stride gives.
        teacher[0] = _randn(2, 3, 2 * height, width, seed=3)
        sizes = [tuple(t.shape[2:]) for t in teacher]
        adapted = branch.connectors[0](student, sizes)
        assert [tuple(a.shape) for a in adapted] == [tuple(t.shape) for t in teacher]
        branch.zero_grad()
        value = branch(student, teacher, {})
        torch.testing.assert_close(value, ReviewKDLoss()(adapted, teacher))
        value.backward()
        assert all(p.grad.isfinite().all() for p in branch.parameters())


def test_review_refuses():
    with pytest.raises(UserError, match='built for 3 features and got 2'):
        _review()(STUDENT[:2], SIZES)
    with pytest.raises(UserError, match='sizes of 2'):
        _review()(STUDENT, SIZES[:2])
    one = [f[:1] for f in STUDENT]
    with pytest.raises(UserError, match='batch of one sample is too small'):
        _review()(one, SIZES)
    assert _review().eval()(one, SIZES)[2].shape == (1, 7)


def test_connectors_run_under_autocast():
    connector = _review()
    exact = connector(STUDENT, SIZES)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        for output, value in zip(connector(STUDENT, SIZES), exact, strict=True):
            torch.testing.assert_close(output.float(), value, rtol=0.1, atol=0.1)
