"""Each family of dense heads: its targets, its boxes, and its second half run by itself."""

import pytest
import torch
from dense_zoo import HEADS, build, features, narrow, samples
from torch import nn
from zoo import model

from mmkd.detection.dense_heads import decoded, family_of, priors_of, through_tail
from mmkd.distillation.step import Step, facts_for
from mmkd.distillation.taps import TapRecorder, flat
from mmkd.errors import UserError
from mmkd.registry import MODELS

every_head = pytest.mark.parametrize('name', HEADS)


class Detector(nn.Module):
    """A head with the name that it has in a detector."""

    def __init__(self, head):
        super().__init__()
        self.bbox_head = head


def _head(name, **options):
    return build(narrow(name, **options)).bbox_head


def _step(head, taps=None):
    """What a training pass of a head gave."""
    detector = Detector(head)
    recorder = TapRecorder(detector, ['bbox_head:0:*', *family_of(head).taps]
                           if taps is None else taps)
    found = recorder.dry_run(lambda: head.loss(features(), samples()))
    return Step(flat(found), [], {}, samples(), model=detector)


def _facts(step, *names):
    return facts_for(dict.fromkeys(names, True), step, {}, 'term', 'SomeLoss')


def _targets_by_hand(name, head):
    """Labels, label weights and box targets of each level, and the number of positives."""
    sizes = [tuple(one.shape[-2:]) for one in features()]
    truth = [sample.gt_instances for sample in samples()]
    if name == 'FCOS':
        points = head.prior_generator.grid_priors(sizes, device='cpu')
        labels, targets = ([one.view(2, len(level), *one.shape[1:]) for one, level in
                            zip(found, points, strict=True)]
                           for found in head.get_targets(points, truth))
        return labels, [torch.ones(one.shape) for one in labels], targets, sum(
            (one < 3).sum().item() for one in labels)
    metas = [sample.metainfo for sample in samples()]
    found = head.get_targets(*head.get_anchors(sizes, metas, device='cpu'), truth, metas)
    skipped = len(found) - 5  # the anchors come first, of some
    return *found[skipped:skipped + 3], found[-1]


@every_head
def test_the_facts_are_what_the_student_computed(name):
    head = _head(name)
    facts = _facts(_step(head), 'assignment', 'priors', 'student_head')
    found = facts['assignment']
    labels, weights, targets, positives = _targets_by_hand(name, head)
    for own, by_hand in ((found.labels, labels), (found.label_weights, weights),
                         (found.box_targets, targets)):
        assert len(own) == 5
        for one, other in zip(own, by_hand, strict=True):
            assert torch.equal(one, other)
    assert found.background == 3 and found.positives.item() == positives > 0
    assert sum(one.sum() for one in found.is_positive()) > 0
    if name == 'FCOS':
        sums = [head.centerness_target(one[where]).sum() for one, where in
                zip(targets, found.is_positive(), strict=True)]
        assert found.centerness.item() == pytest.approx(sum(sums).item())
    else:
        assert found.centerness is None

    assert facts['student_head'] is head and facts['priors'].strides == [8, 16, 32, 64, 128]
    counts = {'RetinaNet': 9}.get(name, 1)
    assert [len(level) for level in facts['priors'].boxes] == [
        counts * cells for cells in (64, 16, 4, 1, 1)]
    assert facts['priors'].boxes[0].shape[1] == (2 if name == 'FCOS' else 4)


def test_a_run_that_records_too_little_says_what_to_do():
    step = _step(_head('GFL'), ['bbox_head:0:1'])
    for asked in ('assignment', 'priors'):
        with pytest.raises(UserError, match=f"`{asked}`.*type='DenseTerm'"):
            _facts(step, asked)
    with pytest.raises(UserError, match='none of GFL, RetinaNet, ATSS and FCOS'):
        _facts(Step({}, [], {}, [], model=Detector(nn.Identity())), 'priors')


@pytest.mark.parametrize('name', ['RetinaNet', 'ATSS'])
def test_no_change_is_the_anchor_itself(name):
    head = _head(name)
    anchors = 9 if name == 'RetinaNet' else 1
    maps = [torch.zeros(2, 4 * anchors, *one.shape[-2:]) for one in features()]
    priors = priors_of(head, [one.shape[-2:] for one in maps], 'cpu').boxes
    for found, level in zip(decoded(head, family_of(head), maps, True), priors, strict=True):
        torch.testing.assert_close(found, level.expand(2, -1, -1))


def test_anchors_of_a_cell_stay_apart():
    head = _head('RetinaNet')
    maps = [torch.zeros(1, 36, *one.shape[-2:]) for one in features()]
    maps[0][0, 4 * 5, 3, 2] = 1.0  # x of anchor 5 in row 3, column 2
    found = decoded(head, family_of(head), maps, True)[0][0]
    anchors = priors_of(head, [one.shape[-2:] for one in maps], 'cpu').boxes[0]
    moved = ((found - anchors).abs() > 1).any(1)
    assert moved.nonzero().flatten().tolist() == [(3 * 8 + 2) * 9 + 5]


def test_boxes_of_a_gfl_by_hand():
    head = _head('GFL')
    maps = [torch.zeros(1, 68, *one.shape[-2:]) for one in features()]
    for edge, place in enumerate((1, 2, 3, 4)):  # all the weight in one place
        maps[1][0, 17 * edge + place, 2, 1] = 100.0
    found = decoded(head, family_of(head), maps, True)[1][0, 2 * 4 + 1]
    x, y = 16, 32  # anchors stand around the corners of cells
    assert found.tolist() == pytest.approx([x - 16, y - 32, x + 48, y + 64])


@every_head
def test_boxes_are_decoded_in_float32(name):
    head = _head(name).eval()
    with torch.no_grad():
        maps = head(features())[1]
        exact = decoded(head, family_of(head), maps, False)
        with torch.autocast('cpu', torch.bfloat16):
            found = decoded(head, family_of(head), maps, False)
    assert all(torch.equal(one, other) for one, other in zip(found, exact, strict=True))


@pytest.mark.parametrize('normed', [True, False])
def test_an_fcos_that_counts_in_strides_gives_the_same_boxes(normed):
    head = _head('FCOS', norm_on_bbox=normed)
    with torch.no_grad():
        trains = decoded(head, family_of(head), head.train()(features())[1], True)
        tests = decoded(head, family_of(head), head.eval()(features())[1], False)
        pixels = head(features())[1][0][0, :, 2, 3]
    for one, other in zip(trains, tests, strict=True):
        torch.testing.assert_close(one, other)
    x, y = 8 * 3.5, 8 * 2.5
    torch.testing.assert_close(tests[0][0, 2 * 8 + 3], torch.tensor([x, y, x, y])
                               + torch.tensor([-1, -1, 1, 1]) * pixels)


@pytest.mark.parametrize(('name', 'options', 'start'), [
    ('GFL', {}, 3), ('GFL', {}, 4), ('RetinaNet', {}, 1), ('ATSS', {}, 3), ('FCOS', {}, 2),
    ('FCOS', dict(norm_on_bbox=True, centerness_on_reg=True), 3)])
def test_the_second_half_goes_on_where_the_first_ends(name, options, start):
    head = _head(name, **options).eval()
    middle = [f'bbox_head.{branch}_convs.{start - 1}.activate:input:*' for branch in
              ('cls', 'reg')]
    outputs = [f'bbox_head:{i}:*' for i in range(len(family_of(head).predictors))]
    recorder = TapRecorder(Detector(head), middle + outputs)
    recorder.dry_run(lambda: head.forward(features()))  # finds what is changed in place
    with torch.no_grad():
        found = recorder.record(lambda: head.forward(features()))
    for level in range(5):
        again = through_tail(head, family_of(head), *(found[f'{tap[:-1]}{level}'].clone()
                                                      for tap in middle), level, start)
        for i, one in enumerate(again):
            torch.testing.assert_close(one, found[f'bbox_head:{i}:{level}'])


def test_families():
    assert [family_of(_head(name)).head.__name__ for name in HEADS] == [
        'GFLHead', 'RetinaHead', 'ATSSHead', 'FCOSHead']
    assert family_of(None) is None and family_of(nn.Identity()) is None
    assert all(family_of(MODELS.build(model(name)).bbox_head) is None
               for name in ('VFNet', 'FSAF'))
    softmax = narrow('RetinaNet')
    softmax.bbox_head.loss_cls = dict(type='CrossEntropyLoss')
    assert family_of(build(softmax).bbox_head) is None
