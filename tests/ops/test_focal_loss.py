"""Focal losses, called as mmcv calls them: MMDetection does so on a GPU only."""

import math

import pytest
import torch
from torch.autograd import gradcheck

import mmkd  # noqa: F401
from mmkd.ops.extension import has_compiled_extension

pytestmark = pytest.mark.skipif(has_compiled_extension(), reason='mmcv compiles them for GPUs only')


def _losses():
    from mmcv.ops import sigmoid_focal_loss, softmax_focal_loss
    return sigmoid_focal_loss, softmax_focal_loss


def _example(background):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 3, generator=generator, dtype=torch.float64) * 3
    return logits, torch.tensor([0, 2, 1, background, 0, background])


def _sigmoid_by_loops(logits, target, gamma, alpha, weight):
    rows = []
    for row, label in zip(logits.tolist(), target.tolist(), strict=True):
        factor = 1 if weight is None or label == 3 else weight[label].item()
        rows.append([])
        for c, logit in enumerate(row):
            p = 1 / (1 + math.exp(-logit))
            loss = (-alpha * (1 - p) ** gamma * math.log(p) if c == label
                    else -(1 - alpha) * p ** gamma * math.log(1 - p))
            rows[-1].append(loss * factor)
    return torch.tensor(rows, dtype=torch.float64)


def _softmax_by_loops(logits, target, gamma, alpha, weight):
    rows = []
    for row, label in zip(logits.tolist(), target.tolist(), strict=True):
        p = math.exp(row[label]) / sum(map(math.exp, row)) if label >= 0 else 1
        factor = 1 if weight is None or label < 0 else weight[label].item()
        rows.append(-alpha * (1 - p) ** gamma * math.log(p) * factor)
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize('weight', [None, torch.tensor([0.5, 2, 3], dtype=torch.float64)])
@pytest.mark.parametrize('gamma', [0.0, 1.5, 2.0])
@pytest.mark.parametrize(('number', 'by_loops', 'background'),
                         [(0, _sigmoid_by_loops, 3), (1, _softmax_by_loops, -1)])
def test_equals_the_loop(number, by_loops, background, gamma, weight):
    loss = _losses()[number]
    logits, target = _example(background)
    expected = by_loops(logits, target, gamma, 0.3, weight)
    arguments = (target, gamma, 0.3, weight)
    torch.testing.assert_close(loss(logits, *arguments, 'none'), expected)
    torch.testing.assert_close(loss(logits, *arguments, 'sum'), expected.sum())
    torch.testing.assert_close(loss(logits, *arguments, 'mean'), expected.sum() / 6)
    assert gradcheck(lambda logits: loss(logits, *arguments, 'mean'), logits.requires_grad_())


def test_is_what_mmdet_computes_on_a_cpu():
    from mmdet.models.losses import focal_loss
    logits, target = _example(3)
    logits.requires_grad_()
    weight = torch.rand(6, dtype=torch.float64)
    one_hot = torch.nn.functional.one_hot(target, 4)[:, :3]
    results = []
    for loss, labels in ((focal_loss.sigmoid_focal_loss, target),
                         (focal_loss.py_sigmoid_focal_loss, one_hot)):
        value = loss(logits, labels, weight, avg_factor=4.0)
        results.append((value, torch.autograd.grad(value, logits)[0]))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize('number', [0, 1])
def test_certain_predictions_have_finite_gradients(number):
    logits = torch.tensor([[300., -300], [300, -300]], requires_grad=True)
    loss = _losses()[number](logits, torch.tensor([0, 1]), 2.0, 0.25, None, 'sum')
    loss.backward()
    assert loss > 10 and logits.grad.isfinite().all()


@pytest.mark.parametrize('number', [0, 1])
def test_no_rows(number):
    logits = torch.zeros(0, 3, requires_grad=True)
    loss = _losses()[number](logits, torch.zeros(0, dtype=torch.long), 2.0, 0.25, None, 'sum')
    loss.backward()
    assert loss == 0 and logits.grad.shape == (0, 3)
