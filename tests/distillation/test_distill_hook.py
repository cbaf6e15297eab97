"""The generic term: taps, connectors, targets, warm-up. Runs use a classifier of two layers."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import mmkd  # noqa: F401
from mmkd.distillation.branch import Branch
from mmkd.distillation.distill_hook import DistillHook, Step
from mmkd.distillation.taps import expand_taps
from mmkd.distillation.teachers import Teacher
from mmkd.errors import UserError
from mmkd.registry import MODELS


@MODELS.register_module()
class _SumOfProducts(nn.Module):
    """A loss that a hand can compute, with a parameter per teacher channel."""

    def __init__(self, teacher_channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(teacher_channels))

    def forward(self, student, teacher, labels, indices=None):
        return (student.sum(1) * (self.scale * teacher).sum(1) * labels).sum()


@MODELS.register_module()
class _Levels(nn.Module):
    multi_level = True

    def __init__(self, student_channels, teacher_size) -> None:
        super().__init__()
        self.facts = student_channels, teacher_size

    def forward(self, student, teacher):
        return sum(s.sum() for s in student) - sum(t.sum() for t in teacher)


@MODELS.register_module()
class _NeedsLabels(nn.Module):
    def __init__(self, sample_labels) -> None:
        super().__init__()


@MODELS.register_module()
class _Conv(nn.Conv2d):
    """A user's connector, which checks nothing."""

    def __init__(self, student_channels, teacher_channels) -> None:
        super().__init__(student_channels, teacher_channels, 1)


def _net(widths=(3, 4, 5)):
    return nn.ModuleDict({f'stage{i}': nn.Linear(3, w) for i, w in enumerate(widths, 1)})


def _step(student, teacher, samples=None, names=('stage1', 'stage2')):
    return Step(dict(zip(names, student, strict=True)), [Teacher('t', _net())],
                dict(t=dict(zip(names, teacher, strict=True))), samples)


def _hook(step, loss, taps=('stage1', 'stage2'), dataset=None, **options):
    hook = DistillHook(loss, tap=list(taps), **options)
    hook.resolve_taps(_net(), step.teachers)
    hook.prepare(step, dataset or SimpleNamespace())
    return hook


def test_wildcards_stand_for_modules_in_order():
    assert expand_taps(_net(), 'stage?') == ['stage1', 'stage2', 'stage3']
    assert expand_taps(_net(), ['stage[13]:input', 'stage2']) == [
        'stage1:input', 'stage3:input', 'stage2']
    with pytest.raises(UserError, match=r"tap 'block\*' matches no submodule"):
        expand_taps(_net(), 'block*')
    with pytest.raises(UserError, match=r"tap 'stage4' does not exist.*Did you mean"):
        expand_taps(_net(), ['stage4'])


def test_as_many_taps_of_the_teacher_as_of_the_student():
    hook = DistillHook(dict(type='KDLoss'), tap='stage?')
    with pytest.raises(UserError, match=r'joins 3 taps.*to 2 of teacher'):
        hook.resolve_taps(_net(), [Teacher('t', _net((3, 4)))])


def test_pairs_are_summed_each_with_a_loss_of_its_own():
    student = [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]])]
    teacher = [torch.tensor([[1.0, 1.0]]), torch.tensor([[5.0]])]
    samples = SimpleNamespace(labels=torch.tensor([2]), other=1)
    hook = _hook(_step(student, teacher, samples), dict(type='_SumOfProducts'))
    # (1 + 2) (1 + 1) 2 + 3 * 5 * 2
    assert hook.compute(_step(student, teacher, samples)).item() == 42
    assert [p.shape for p in hook.branches['t'].parameters()] == [(2,), (1,)]


def test_a_multi_level_loss_gets_lists():
    student, teacher = [torch.ones(1, 2, 4, 4), torch.ones(1, 3)], [torch.zeros(1, 2, 2, 2)] * 2
    hook = _hook(_step(student, teacher), dict(type='_Levels'))
    assert hook.branches['t'].losses[0].facts == ([2, 3], [(2, 2), (2, 2)])
    assert hook.compute(_step(student, teacher)).item() == 32 + 3


def test_what_a_loss_needs_and_the_data_does_not_give():
    features = [torch.ones(1, 2)], [torch.ones(1, 2)]
    with pytest.raises(UserError, match='_SumOfProducts needs `labels` of every batch'):
        _hook(_step(*features, names=['stage1']), dict(type='_SumOfProducts'), ['stage1'])
    with pytest.raises(UserError, match='the training data has no attribute `labels`'):
        _hook(_step(*features, names=['stage1']), dict(type='_NeedsLabels'), ['stage1'])


def test_a_connector_that_cannot_take_the_feature_names_both_shapes():
    with pytest.raises(UserError, match=r'not a student feature of shape \(1, 2\)'):
        Branch(dict(type='AttentionLoss'), dict(type='ConvConnector'), [torch.ones(1, 2)],
               [torch.ones(1, 3, 2, 2)])
    with pytest.raises(UserError, match=r'shape \[\(1, 2\)\] to teacher features of shape'):
        Branch(dict(type='AttentionLoss'), dict(type='_Conv'), [torch.ones(1, 2)],
               [torch.ones(1, 3, 2, 2)])


def test_a_loss_that_refuses_its_input_names_the_term():
    student, teacher = [torch.ones(1, 2, 3)], [torch.ones(1, 2)]

    class Picky(nn.Module):
        def forward(self, student, teacher):
            raise ValueError('shapes differ')

    hook = DistillHook(dict(type='AttentionLoss'), tap=['stage1'], name='picky')
    step = _step(student, teacher, names=['stage1'])
    hook.resolve_taps(_net(), step.teachers)
    hook.prepare(step, SimpleNamespace())
    hook.branches['t'].losses[0] = Picky()
    with pytest.raises(UserError, match="term 'picky': shapes differ"):
        hook.compute(step)


def test_the_weight_rises_during_the_warm_up():
    hook = DistillHook(dict(type='AttentionLoss'), tap='x', weight=3.0, warmup_epochs=4)
    factors = []
    for epoch in range(6):
        hook.before_train_iter(SimpleNamespace(epoch=epoch), 0)
        factors.append(hook.factor)
    assert factors == [0.25, 0.5, 0.75, 1, 1, 1]
