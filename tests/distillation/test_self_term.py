"""Terms without a teacher, and teachers made of the student. Sums a hand can compute."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.model import BaseModel
from torch import nn

import mmkd  # noqa: F401
from mmkd.distillation import SelfTerm, Step, TapRecorder
from mmkd.distillation.student_teachers import MeanTeacher, PartnerTeacher
from mmkd.distillation.taps import flat, forward_for_taps
from mmkd.errors import UserError
from mmkd.registry import MODELS


@MODELS.register_module()
class _TwiceMinus(nn.Module):
    """Of one pair: ``2 sum(student) - sum(teacher)``."""

    def forward(self, student, teacher):
        return 2 * student.sum() - teacher.detach().sum()


@MODELS.register_module()
class _AllAtOnce(nn.Module):
    """Of all values: ``sum + labels``, and of its ramped part a share."""

    multi_level = True

    def forward(self, values, labels, warmup):
        return sum(value.sum() for value in values) * warmup + labels.sum()


@MODELS.register_module()
class _Heads(nn.Module):
    """Copies a part of the student and hands a dict to the loss."""

    multi_level = True

    def __init__(self, student_model, student_channels) -> None:
        super().__init__()
        self.copied = nn.Linear(3, student_model.stage1.out_features)
        self.channels = student_channels

    def forward(self, values):
        return dict(first=values[0], rest=values[1:])


@MODELS.register_module()
class _OfDict(nn.Module):
    multi_level = True

    def forward(self, student, teacher):
        assert all(isinstance(value, torch.Tensor) for value in teacher)
        return student['first'].sum() - student['rest'][0].sum() + 10 * len(teacher)


class _Net(BaseModel):
    """Three layers in a row, each an own scale of what comes before."""

    def __init__(self) -> None:
        super().__init__()
        self.stage1, self.stage2, self.stage3 = (nn.Linear(1, 1, bias=False) for _ in range(3))
        self.norm = nn.BatchNorm1d(1)
        for factor, layer in zip((2.0, 3.0, 5.0), (self.stage1, self.stage2, self.stage3),
                                 strict=True):
            nn.init.constant_(layer.weight, factor)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        out = self.stage3(self.stage2(self.stage1(inputs)))
        return self.norm(out)


def _prepared(term, x=None, **samples):
    model, x = _Net().eval(), torch.ones(1, 1) if x is None else x
    term.name = 'own'
    found = TapRecorder(model, term.student_patterns()).dry_run(lambda: forward_for_taps(model, x))
    assert term.teacher_patterns() == []
    step = Step(flat(found), [], {}, SimpleNamespace(**samples), model, x)
    term.pair(found, {}, step)
    term.prepare(step, SimpleNamespace())
    return term, step


def test_each_tap_imitates_the_next():
    term, step = _prepared(SelfTerm(dict(type='_TwiceMinus'), tap='stage?'))
    # values 2, 6, 30: (2 * 2 - 6) + (2 * 6 - 30)
    assert term.compute(step).item() == -20
    assert term.taps == ['stage1', 'stage2']
    assert set(step.student) == {'stage1', 'stage2', 'stage3'}


@pytest.mark.parametrize('second', ['norm:input', 'stage3'])
def test_named_pairs_which_may_have_one_tap_in_common(second):
    term, step = _prepared(SelfTerm(
        dict(type='_TwiceMinus'), tap=['stage1', 'stage2'], teacher_tap=['stage3', second]))
    assert term.compute(step).item() == (4 - 30) + (12 - 30)
    assert term.taps == ['stage1', 'stage2']


def test_a_loss_of_all_values_gets_them_once_with_labels_and_warm_up():
    term = SelfTerm(dict(type='_AllAtOnce'), tap=['stage1', 'stage3'], warmup_epochs=4)
    term, step = _prepared(term, labels=torch.tensor([7]))
    term.begin_epoch(0)
    assert term.compute(step).item() == 32 / 4 + 7  # the loss alone applies the warm-up


def test_a_connector_may_copy_of_the_student_and_hand_over_anything():
    term, step = _prepared(SelfTerm(
        dict(type='_OfDict'), tap=['stage1', 'stage2'], connector=dict(type='_Heads')))
    assert term.compute(step).item() == 2 - 6 + 20
    (connector, ) = term.branches['student'].connectors
    assert connector.channels == [1, 1]
    assert {name for name, _ in connector.named_parameters()} == {'copied.weight', 'copied.bias'}


def test_a_single_tap_has_no_next_one():
    with pytest.raises(UserError, match="term 'own' taps 'stage2' alone, and _TwiceMinus compares"):
        _prepared(SelfTerm(dict(type='_TwiceMinus'), tap='stage2'))


def test_the_gaussian_ramp():
    term = SelfTerm(dict(type='_TwiceMinus'), tap='x', warmup_epochs=4, warmup='gaussian')
    factors = []
    for epoch in (0, 1, 3, 9):
        term.begin_epoch(epoch)
        factors.append(term.factor)
    # exp(-5 (3/4)^2), exp(-5 (1/2)^2), 1, 1
    assert factors == pytest.approx([0.0600541, 0.2865048, 1, 1], rel=1e-5)


def test_a_mean_teacher_is_the_ramped_average():
    student = _Net()
    teacher = MeanTeacher('mean', student, 0.9)
    nn.init.constant_(student.stage1.weight, 4.0)  # a checkpoint was loaded
    teacher.begin(student)
    expected = 4.0
    for step, value in enumerate((1.0, -2.0, 0.5, 8.0, 3.0, 3.0, 2.0, 1.0, 5.0, 7.0, 11.0, 2.0)):
        nn.init.constant_(student.stage1.weight, value)
        nn.init.constant_(student.norm.running_mean, value)
        teacher.update(student)
        decay = min(1 - 1 / (step + 1), 0.9)
        expected = decay * expected + (1 - decay) * value
        assert teacher.model.stage1.weight.item() == pytest.approx(expected, rel=1e-6)
        assert teacher.model.norm.running_mean.item() == pytest.approx(expected, rel=1e-6)
    assert not teacher.model.training
    assert not any(p.requires_grad for p in teacher.model.parameters())


@pytest.mark.parametrize('decay', [1.0, -0.1, True, '0.9'])
def test_a_mean_teacher_with_a_decay_that_is_none(decay):
    with pytest.raises(UserError, match="teacher 'mean' has ema="):
        MeanTeacher('mean', _Net(), decay)


def test_a_partner_teacher_is_the_student_on_other_images():
    student = _Net().train()
    teacher = PartnerTeacher('partner', student)
    teacher.tap(['stage2'], torch.ones(2, 1))
    assert student.training
    assert student.norm.num_batches_tracked == 0  # a dry run leaves batch norm alone
    partners = torch.tensor([[1.0], [5.0]])
    taps = teacher(torch.zeros(2, 1), SimpleNamespace(partners=partners))
    assert taps['stage2'].flatten().tolist() == [6, 30]
    assert not taps['stage2'].requires_grad
    assert student.norm.num_batches_tracked == 1  # trained on as any image is
    with pytest.raises(UserError, match=r"needs a partner for every image.*PairSampler"):
        teacher(torch.zeros(2, 1), SimpleNamespace())
