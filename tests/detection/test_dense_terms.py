"""LD, BCKD and CrossKD in a run: what they teach, and what they refuse."""

import pytest
import torch
from dense_zoo import HEADS, build, copied, distilled, gradients, narrow, refusal, saved, values
from helpers import CLASSES, distillation_hook
from mmengine.config import Config
from zoo import model

from mmkd.distillation.step import Step
from mmkd.engine.distil import distil
from mmkd.errors import UserError
from mmkd.registry import MODELS, TERMS

METHODS = ('bckd', 'crosskd')
RUNS = [('GFL', 'ld'), *((head, method) for head in HEADS for method in METHODS)]


@pytest.mark.parametrize(('head', 'method'), RUNS)
def test_two_iterations(head, method, tmp_path):
    cfg = narrow(head)
    run, found = distilled(tmp_path, cfg, saved(tmp_path, cfg), [method], gradients)
    assert all(0 < value < float('inf') for value in values(run, method))
    reached = {name for name, norm in found[method].items() if norm > 0}
    assert 'backbone.layer4.0.downsample.0.weight' in reached
    last = [name for name, _ in run.model.named_parameters()
            if name.endswith(('_cls.weight', '_reg.weight'))]
    assert len(last) == 2, 'the predictors'
    for branch in ('cls', 'reg'):
        assert f'bbox_head.{branch}_convs.1.conv.weight' in reached
        last.append(f'bbox_head.{branch}_convs.3.conv.weight')
    assert reached.intersection(last) == set(() if method == 'crosskd' else last)


def test_a_gfl_teaches_an_atss(tmp_path):
    """Both have one prior in a cell and boxes in pixels, so that they can be compared."""
    _, found = distilled(tmp_path, narrow('ATSS'), saved(tmp_path, narrow('GFL')), ['bckd'],
                         gradients)
    assert found['bckd']['bbox_head.atss_reg.weight'] > 0


def test_a_student_that_equals_its_teacher_has_nothing_to_learn(tmp_path):
    run = copied(tmp_path, narrow('GFL'), ['ld', *METHODS])
    for name in ('ld', *METHODS):
        assert values(run, name)[0] == pytest.approx(0, abs=1e-3)


def test_a_teacher_with_more_classes_in_another_order(tmp_path):
    """The student's class is found by name among the teacher's."""
    cfg, theirs = narrow('GFL'), narrow('GFL', num_classes=5)
    names = ('other', CLASSES[2], CLASSES[0], 'more', CLASSES[1])
    run, _ = distilled(tmp_path, cfg, saved(tmp_path, theirs, names), ['bckd'])
    [term] = distillation_hook(run).terms
    maps = [torch.arange(5.0).view(1, 5, 1, 1)]
    step = Step({}, distillation_hook(run).teachers, {}, None)
    found = term.in_students_classes(step, 'teacher', dict(cls=maps))
    assert found['cls'][0].flatten().tolist() == [2, 4, 1]


# What is refused, in one sentence, before anything runs.

def _term(method, **changes):
    loss = dict(ld='LDLoss', bckd='BCKDLoss', crosskd='CrossKDLoss')[method]
    term = TERMS.build(dict(type='CrossKDTerm' if method == 'crosskd' else 'DenseTerm',
                            loss=dict(type=loss, **changes.pop('loss', {})), **changes))
    term.name = method
    return term


@pytest.fixture(scope='module')
def detectors():
    return {head: build(narrow(head)) for head in HEADS}


@pytest.mark.parametrize('head', ['RetinaNet', 'ATSS', 'FCOS'])
def test_ld_wants_distributions_on_both_sides(head, detectors):
    message = refusal(_term('ld'), detectors[head], detectors['GFL'])
    assert f'the {type(detectors[head].bbox_head).__name__} of the student gives none' in message
    message = refusal(_term('ld'), detectors['GFL'], detectors[head])
    assert "of teacher 'big' gives none: take GFL for both" in message


@pytest.mark.parametrize('method', ['ld', *METHODS])
@pytest.mark.parametrize(('name', 'kind'), [
    ('VFNet', 'the head VFNetHead'), ('YOLOX', 'the head YOLOXHead'),
    ('RTMDet', 'the head RTMDetSepBNHead'), ('DETR', 'the head DETRHead'),
    ('Faster R-CNN', 'no bbox_head')])
def test_other_heads_are_named(method, name, kind, detectors):
    other = MODELS.build(model(name))
    for student, teacher, who in ((other, detectors['GFL'], 'the student'),
                                  (detectors['GFL'], other, "teacher 'big'")):
        message = refusal(_term(method), student, teacher)
        assert message.startswith(f"term '{method}' ") and 'pkd' in message
        assert f'{who} ({type(other).__name__}) has {kind}' in message


@pytest.mark.parametrize('method', METHODS)
def test_heads_with_other_anchors(method, detectors):
    assert '9 in a cell of stride 8' in refusal(
        _term(method), detectors['GFL'], detectors['RetinaNet'])


def test_ld_learns_from_a_cache_while_bckd_asks_the_teacher(tmp_path, cache):
    cfg, found = narrow('GFL'), []
    teacher = saved(tmp_path, cfg)
    for changes in ({}, dict(teacher_cache=cache | dict(terms=['ld']))):
        run, _ = distilled(tmp_path, cfg, teacher, ['ld', 'bckd'], iters=1, **changes)
        found.append([values(run, name)[0] for name in ('ld', 'bckd')])
    assert type(distillation_hook(run).teachers[0]).__name__ == 'CachedTeacher'
    assert found[1] == pytest.approx(found[0], rel=1e-2)  # stored in float16


@pytest.mark.parametrize('method', METHODS)
def test_a_term_that_asks_the_teacher_is_not_cached(method, tmp_path, cache):
    with pytest.raises(UserError, match=f"'{method}' needs its teachers in every step.*leave this "
                                        r'term out of teacher_cache\.terms'):
        distilled(tmp_path, narrow('GFL'), saved(tmp_path, narrow('GFL')), [method],
                  teacher_cache=cache)
    assert not (tmp_path / 'cache').exists()


@pytest.mark.parametrize(('head', 'expected'), [
    ('RetinaNet', dict(box='giou', box_weight=1)), ('GFL', dict(box='distribution', box_weight=4)),
    ('ATSS', dict(box='giou', centerness_weight=1)),
    ('FCOS', dict(box='iou', class_weight=0.4, box_weight=0.75, per='centerness'))])
def test_the_preset_of_crosskd_knows_the_published_settings(head, expected, tmp_path):
    Config(dict(model=narrow(head))).dump(tmp_path / 'teacher.py')
    cfg = Config(dict(model=narrow(head)))
    distil(cfg, [f'{tmp_path / "teacher.py"}=weights.pth'], ['crosskd'])
    assert {key: cfg.terms.crosskd.loss[key] for key in expected} == expected
    assert cfg.terms.crosskd.convs == (2 if head == 'FCOS' else 3)


def test_what_crosskd_cannot_hand_over(detectors):
    wide = narrow('GFL')
    wide.bbox_head.feat_channels = 64
    assert 'give the student as many feat_channels' in refusal(
        _term('crosskd'), detectors['GFL'], build(wide))
    for convs in (0, 5):
        assert 'give a number from 1 to that' in refusal(
            _term('crosskd', convs=convs), detectors['GFL'], detectors['GFL'])
    assert 'centerness_weight' in refusal(_term('crosskd', loss=dict(centerness_weight=1.0)),
                                          detectors['ATSS'], detectors['GFL'])
    assert "box='giou'" in refusal(_term('crosskd', loss=dict(box='distribution')),
                                   detectors['ATSS'], detectors['ATSS'])
