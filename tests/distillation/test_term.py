"""The generic term: pairs, groups, connectors, sizes, facts, warm-up. Sums a hand can compute."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import mmkd  # noqa: F401
from mmkd.distillation.branch import Branch, names_of_facts
from mmkd.distillation.losses import InputError
from mmkd.distillation.step import Step
from mmkd.distillation.taps import flat
from mmkd.distillation.teachers import Teacher
from mmkd.distillation.term import Term
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

    def forward(self, own, others):
        return sum(s.sum() for s in own) - sum(t.sum() for t in others)


@MODELS.register_module()
class _NeedsLabels(nn.Module):
    def __init__(self, sample_labels) -> None:
        super().__init__()


@MODELS.register_module()
class _OtherNames(nn.Module):
    """Calls its features something else, and takes more than it names."""

    def forward(self, a, b, *args, factor=1.0, **kwargs):
        assert not args and not kwargs
        return (2 * a.sum() - b.sum()) * factor


@MODELS.register_module()
class _Seen(nn.Module):
    """Keeps what it was given."""

    def forward(self, student, teacher):
        self.seen = student, teacher
        return student.sum() - teacher.sum()


@MODELS.register_module()
class _Groups(nn.Module):
    """Of dicts of lists: the products of the classes, and 100 times the difference of boxes."""

    def forward(self, student, teacher, labels):
        assert list(student) == list(teacher) == ['classes', 'boxes']
        products = [(s * t).sum() for s, t in zip(student['classes'], teacher['classes'],
                                                  strict=False)]
        [own], [other] = student['boxes'], teacher['boxes']
        return sum(products) + 100 * (own - other).sum() + 1000 * labels


@MODELS.register_module()
class _Conv(nn.Conv2d):
    """A user's connector, which checks nothing."""

    def __init__(self, student_channels, teacher_channels) -> None:
        super().__init__(student_channels, teacher_channels, 1)


NAMES = ('stage1', 'stage2')
INPUTS = torch.zeros(1, 3, 64, 64)


def _teacher(name='t', weight=1.0):
    return Teacher(name, nn.Linear(1, 1), weight)


def _step(student, teacher, samples=None):
    ours, theirs = (dict(zip(NAMES, side, strict=False)) for side in (student, teacher))
    return Step(ours, [_teacher()], dict(t=theirs), samples, inputs=INPUTS)


def _tapped(leaves):
    """As a dry run gives it where each tap is one leaf."""
    return {name: {name: leaf} for name, leaf in leaves.items()}


def _term(step, loss, name='term', **options):
    term = Term(dict(type=loss), tap=list(step.student), **options)
    term.name = name
    theirs = {name: _tapped(taps) for name, taps in step.taps.items()}
    term.pair(_tapped(step.student), theirs, step)
    term.prepare(step, SimpleNamespace())
    return term


def test_pairs_are_summed_each_with_a_loss_of_its_own():
    student = [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]])]
    teacher = [torch.tensor([[1.0, 1.0]]), torch.tensor([[5.0]])]
    samples = SimpleNamespace(labels=torch.tensor([2]), other=1)
    term = _term(_step(student, teacher, samples), '_SumOfProducts')
    # (1 + 2) (1 + 1) 2 + 3 * 5 * 2
    assert term.compute(_step(student, teacher, samples)).item() == 42
    assert [p.shape for p in term.branches['t'].parameters()] == [(2,), (1,)]
    assert term.taps == ['stage1', 'stage2']


def test_teachers_share_a_term_by_their_weights():
    own, ones = {'stage1': torch.tensor([[3.0]])}, torch.ones(1, 1)
    step = Step(own, [_teacher('a'), _teacher('b', 3.0)],
                dict(a=dict(stage1=2 * ones), b=dict(stage1=10 * ones)), None, inputs=INPUTS)
    term = _term(step, '_OtherNames')
    # (6 - 2) / 4 + (6 - 10) 3 / 4
    assert term.compute(step).item() == -2
    assert set(term.branches) == {'a', 'b'}


def test_a_multi_level_loss_gets_lists():
    student, teacher = [torch.ones(1, 2, 4, 4), torch.ones(1, 3)], [torch.zeros(1, 2, 2, 2)] * 2
    term = _term(_step(student, teacher), '_Levels')
    assert term.branches['t'].losses[0].facts == ([2, 3], [(2, 2), (2, 2)])
    assert term.compute(_step(student, teacher)).item() == 32 + 3


def test_a_loss_may_call_its_features_anything():
    features = [torch.ones(1, 2)], [torch.ones(1, 3)]
    assert names_of_facts(_OtherNames) == {'factor': False}
    assert names_of_facts(_SumOfProducts) == {'labels': True, 'indices': False}
    term = _term(_step(*features), '_OtherNames')
    assert term.compute(_step(*features)).item() == 4 - 3
    assert term.compute(_step(*features, SimpleNamespace(factor=5.0))).item() == 5


def _pyramid(*widths, value=1.0):
    return {f'neck:{i}': torch.full((1, 2, width, width), value * width)
            for i, width in enumerate(widths)}


def _strided(student, teacher, match='stride', loss='_Seen'):
    term = Term(dict(type=loss), tap='neck:*', match=match)
    term.name = 'neck'
    step = Step(student, [_teacher()], dict(t=teacher), None, inputs=INPUTS)
    term.pair({'neck:*': student}, dict(t={'neck:*': teacher}), step)
    term.prepare(step, SimpleNamespace())
    return term, step


def test_maps_of_equal_stride_meet():
    term, step = _strided(_pyramid(16, 8, 4), _pyramid(8, 4, 2, value=2.0))
    assert term.pairs['t'] == (['neck:1', 'neck:2'], ['neck:0', 'neck:1'])
    assert term.taps == ['neck:1', 'neck:2']
    term.compute(step)
    seen = [loss.seen for loss in term.branches['t'].losses]
    assert [(s.shape[-1], s.max().item(), t.max().item()) for s, t in seen] == [
        (8, 8, 16), (4, 4, 8)]


def test_a_neck_that_begins_with_the_coarsest_is_paired_from_the_finest():
    """As that of YOLOv3; a connector over all levels hands features down."""
    term, _ = _strided(_pyramid(4, 8, 16), _pyramid(16, 8, 4))
    assert term.pairs['t'] == (['neck:2', 'neck:1', 'neck:0'], ['neck:0', 'neck:1', 'neck:2'])


def test_levels_of_one_cell_meet_in_their_order():
    """Of an image of 64 px the levels of stride 64 and 128 look the same."""
    term, _ = _strided(_pyramid(2, 1, 1), _pyramid(4, 2, 1, 1))
    assert term.pairs['t'] == (['neck:0', 'neck:1', 'neck:2'], ['neck:1', 'neck:2', 'neck:3'])


def test_nothing_can_be_paired():
    with pytest.raises(UserError, match=r"term 'neck' finds no two maps of equal stride: the "
                                        r'student has neck:0 of stride 4, neck:1 of stride 8, '
                                        r"teacher 't' neck:0 of stride 16; .*match='order'"):
        _strided(_pyramid(16, 8), _pyramid(4))
    vectors = {'head': torch.ones(1, 3)}
    with pytest.raises(UserError, match=r"the student has head, teacher 't' head; "):
        _strided(vectors, vectors)
    with pytest.raises(UserError, match=r"term 'neck' joins 3 taps of the student \(neck:0 of "
                                        r"stride 4, .*\) to 2 of teacher 't' \(neck:0 of "
                                        r"stride 8, .*match='stride'"):
        _strided(_pyramid(16, 8, 4), _pyramid(8, 4), 'order')


RISING = torch.arange(16.0).view(1, 1, 4, 4)
AVERAGED = torch.tensor([[[[2.5, 4.5], [10.5, 12.5]]]])
FLAT = torch.full((1, 1, 2, 2), 3.0)


@pytest.mark.parametrize(('size', 'student', 'teacher', 'expected'), [
    ('student', FLAT, RISING, (FLAT, AVERAGED)),
    ('student', RISING, FLAT, (RISING, torch.full((1, 1, 4, 4), 3.0))),
    ('teacher', FLAT, RISING, (torch.full((1, 1, 4, 4), 3.0), RISING)),
    ('teacher', RISING, FLAT, (AVERAGED, FLAT)),
    ('smaller', FLAT, RISING, (FLAT, AVERAGED)),
    ('smaller', RISING, FLAT, (AVERAGED, FLAT)),
    ('smaller', RISING, RISING + 1, (RISING, RISING + 1)),
    (None, FLAT, RISING, (FLAT, RISING)),
    ('student', FLAT, torch.ones(1, 5), (FLAT, torch.ones(1, 5))),
])
def test_maps_are_brought_to_one_size(size, student, teacher, expected):
    step = _step([student], [teacher])
    term = _term(step, '_Seen', size=size)
    term.compute(step)
    [loss] = term.branches['t'].losses
    for seen, value in zip(loss.seen, expected, strict=True):
        assert torch.equal(seen, value)


def test_sizes_meet_behind_the_connector():
    step = _step([FLAT], [torch.cat([RISING, RISING], 1)])
    term = _term(step, '_Seen', size='teacher', connector=dict(type='ConvConnector'))
    term.compute(step)
    assert [tuple(seen.shape) for seen in term.branches['t'].losses[0].seen] == [(1, 2, 4, 4)] * 2


def test_groups_go_to_one_loss_as_they_are():
    own = {'cls': {'cls:0': torch.tensor([2.0]), 'cls:1': torch.tensor([3.0])},
           'reg': {'reg': torch.tensor([7.0])}}
    theirs = {'head:0:*': {'head:0:0': torch.tensor([10.0]), 'head:0:1': torch.tensor([20.0]),
                           'head:0:2': torch.tensor([30.0])},
              'head:1': {'head:1': torch.tensor([5.0])}}
    step = Step(flat(own), [_teacher()], dict(t=flat(theirs)), SimpleNamespace(labels=1))
    options = dict(tap=dict(classes='cls', boxes=['reg']),
                   teacher_tap=dict(classes=['head:0:*'], boxes='head:1'))
    term = Term(dict(type='_Groups'), **options)
    assert term.student_patterns() == ['cls', 'reg']
    assert term.teacher_patterns() == ['head:0:*', 'head:1']
    term.pair(own, dict(t=theirs), step)
    term.prepare(step, SimpleNamespace())
    assert term.taps == ['cls:0', 'cls:1', 'reg']
    # 2 * 10 + 3 * 20, the third has no partner and needs none; 100 (7 - 5); 1000 * 1
    assert term.compute(step).item() == 80 + 200 + 1000
    adapted = Term(dict(type='_Groups'), connector=dict(type='ConvConnector'), **options)
    adapted.pair(own, dict(t=theirs), step)
    with pytest.raises(UserError, match='ConvConnector cannot adapt features that come in groups'):
        adapted.prepare(step, SimpleNamespace())


def test_what_a_loss_needs_and_the_data_does_not_give():
    step = _step([torch.ones(1, 2)], [torch.ones(1, 2)])
    with pytest.raises(UserError, match='_SumOfProducts needs `labels` of every batch'):
        _term(step, '_SumOfProducts')
    with pytest.raises(UserError, match='the training data has no attribute `labels`'):
        _term(step, '_NeedsLabels')


def test_a_connector_that_cannot_take_the_feature_names_both_shapes():
    with pytest.raises(UserError, match=r'not a student feature of shape \(1, 2\)'):
        Branch(dict(type='AttentionLoss'), dict(type='ConvConnector'), [torch.ones(1, 2)],
               [torch.ones(1, 3, 2, 2)])
    with pytest.raises(UserError, match=r'shape \[\(1, 2\)\] to teacher features of shape'):
        Branch(dict(type='AttentionLoss'), dict(type='_Conv'), [torch.ones(1, 2)],
               [torch.ones(1, 3, 2, 2)])


class _Picky(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, student, teacher):
        raise self.error


def _picky(error):
    step = _step([torch.ones(1, 2, 3)], [torch.ones(1, 2)])
    term = _term(step, 'AttentionLoss', name='picky')
    term.branches['t'].losses[0] = _Picky(error)
    return lambda: term.compute(step)


def test_a_loss_that_refuses_its_input_names_the_term():
    with pytest.raises(UserError, match="term 'picky': shapes differ"):
        _picky(InputError('shapes differ'))()


@pytest.mark.parametrize('error', [ValueError('not enough values to unpack'), RuntimeError('x')])
def test_any_other_error_in_a_loss_is_a_bug_and_stays_one(error):
    with pytest.raises(type(error)) as caught:
        _picky(error)()
    assert caught.value is error


def test_the_weight_rises_during_the_warm_up():
    term = Term(dict(type='AttentionLoss'), tap='x', weight=3.0, warmup_epochs=4)
    factors = []
    for epoch in range(6):
        term.begin_epoch(epoch)
        factors.append(term.factor)
    assert factors == [0.25, 0.5, 0.75, 1, 1, 1]


@pytest.mark.parametrize(('until', 'ends'), [(3, 3), (0.5, 4), (0.51, 5), (None, None), (9, None)])
def test_a_term_ends(until, ends):
    """Of eight epochs: after three, after half of them, within the fifth."""
    step = _step([torch.ones(1, 1)], [torch.ones(1, 1)])
    term = _term(step, '_OtherNames', until=until)
    alive = []
    for epoch in range(8):
        term.begin_epoch(epoch, epoch / 8)
        alive.append(term.compute(step).item() != 0)
        assert term.ended != alive[-1]
    assert alive == [ends is None or epoch < ends for epoch in range(8)]


@pytest.mark.parametrize(('options', 'message'), [
    *((dict(until=until), r'until=.*: give a whole number of epochs, such as 280, or the share')
      for until in (0, -1, 1.0, 0.0, 1.5, True, 'end')),
    (dict(teacher_tap=dict(classes='y')), r'groups of taps on one side alone'),
    (dict(match='strides'), r"match='strides': give one of order, stride\. Did you mean 'stride'"),
    (dict(size='larger'), r"size='larger': give one of .*student, teacher, smaller"),
    (dict(warmup='gausian'), r"warmup='gausian': give one of .*Did you mean 'gaussian'\?")])
def test_options_out_of_range(options, message):
    with pytest.raises(UserError, match=message):
        Term(dict(type='KDLoss'), tap='x', **options)
