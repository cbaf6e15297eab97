"""LD, BCKD and CrossKD in a run: what they teach, and what they refuse."""

from types import SimpleNamespace

import pytest
import torch
from dense_zoo import HEADS, build, distilled, narrow, saved
from helpers import CLASSES, NoiseDetection, distillation_hook, runner, train_config
from mmengine.config import Config
from zoo import model

from mmkd.distillation.step import Step
from mmkd.engine.distil import distil
from mmkd.errors import UserError
from mmkd.registry import MODELS, TERMS
from mmkd.teacher_cache.options import fix_views

METHODS = ('bckd', 'crosskd')
RUNS = [('GFL', 'ld'), *((head, method) for head in HEADS for method in METHODS)]


def _gradients(run):
    """The gradient of the term alone at each of the student's parameters."""
    [term] = distillation_hook(run).terms
    batch = run.model.data_preprocessor(next(iter(run.train_dataloader)), True)
    losses = run.model(**batch, mode='loss')
    named = dict(run.model.named_parameters())
    wanted = {name: p for name, p in named.items() if p.requires_grad}
    found = torch.autograd.grad(losses[f'loss_distill_{term.name}'], list(wanted.values()),
                                allow_unused=True)
    return {name: 0.0 if one is None else one.norm().item()
            for name, one in zip(wanted, found, strict=True)}


@pytest.mark.parametrize(('head', 'method'), RUNS)
def test_two_iterations(head, method, tmp_path):
    cfg = narrow(head)
    run, gradients = distilled(tmp_path, cfg, saved(tmp_path, cfg), [method], _gradients)
    values = run.message_hub.log_scalars[f'train/loss_distill_{method}'].data[0]
    assert all(0 < value < float('inf') for value in values)
    assert all(norm < float('inf') for norm in gradients.values())
    assert gradients['backbone.layer4.0.downsample.0.weight'] > 0
    for branch in ('cls', 'reg'):
        assert gradients[f'bbox_head.{branch}_convs.1.conv.weight'] > 0
        assert (gradients[f'bbox_head.{branch}_convs.3.conv.weight'] > 0) == (method != 'crosskd')
    predictors = [name for name in gradients if name.endswith(('_cls.weight', '_reg.weight'))]
    assert len(predictors) == 2
    assert all((gradients[name] > 0) == (method != 'crosskd') for name in predictors)
    [teacher] = distillation_hook(run).teachers
    assert all(p.grad is None for p in teacher.model.parameters())
    assert all('get_targets' not in vars(module) for module in run.model.modules())


def test_a_gfl_teaches_an_atss(tmp_path):
    """Both have one prior in a cell and boxes in pixels, so that they can be compared."""
    _, gradients = distilled(tmp_path, narrow('ATSS'), saved(tmp_path, narrow('GFL')), ['bckd'],
                             _gradients)
    assert gradients['bbox_head.atss_reg.weight'] > 0


def test_a_student_that_equals_its_teacher_has_nothing_to_learn(tmp_path):
    cfg = narrow('GFL')
    cfg.backbone.norm_eval = True
    teacher = saved(tmp_path, cfg)
    run_cfg = train_config(tmp_path / 'run', cfg, iters=1, batch=2)
    run_cfg.load_from = str(tmp_path / 'teacher.pth')
    distil(run_cfg, [teacher], ['ld', *METHODS])
    run = runner(run_cfg)
    run.train()
    for name in ('ld', *METHODS):
        [value] = run.message_hub.log_scalars[f'train/loss_distill_{name}'].data[0]
        assert value == pytest.approx(0, abs=1e-3)


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


def _meet(term, student, teacher):
    teacher = SimpleNamespace(name='big', model=teacher)
    with pytest.raises(UserError) as error:
        term.meet(student, [teacher])
    assert '\n' not in str(error.value)
    return str(error.value)


@pytest.fixture(scope='module')
def detectors():
    return {head: build(narrow(head)) for head in HEADS}


@pytest.mark.parametrize('head', ['RetinaNet', 'ATSS', 'FCOS'])
def test_ld_wants_distributions_on_both_sides(head, detectors):
    message = _meet(_term('ld'), detectors[head], detectors['GFL'])
    assert f'the {type(detectors[head].bbox_head).__name__} of the student gives none' in message
    message = _meet(_term('ld'), detectors['GFL'], detectors[head])
    assert "of teacher 'big' gives none: take GFL for both" in message


@pytest.mark.parametrize('method', ['ld', *METHODS])
@pytest.mark.parametrize(('name', 'kind'), [
    ('VFNet', 'the head VFNetHead'), ('YOLOX', 'the head YOLOXHead'),
    ('RTMDet', 'the head RTMDetSepBNHead'), ('DETR', 'the head DETRHead')])
def test_other_heads_are_named(method, name, kind, detectors):
    other = MODELS.build(model(name))
    assert kind in _meet(_term(method), other, detectors['GFL'])
    assert f'teacher \'big\' ({type(other).__name__}) has {kind}' in _meet(
        _term(method), detectors['GFL'], other)


def test_a_two_stage_student_is_refused_when_the_run_starts(tmp_path):
    cfg = train_config(tmp_path / 'run', model('Faster R-CNN'), iters=2, batch=2)
    distil(cfg, [saved(tmp_path, narrow('GFL'))], ['bckd'])
    with pytest.raises(UserError, match=r"term 'bckd'.*\(FasterRCNN\) has no bbox_head.*pkd"):
        runner(cfg).train()


@pytest.mark.parametrize('method', METHODS)
def test_heads_with_other_anchors(method, detectors):
    assert '9 in a cell of stride 8' in _meet(_term(method), detectors['GFL'],
                                              detectors['RetinaNet'])


def test_ld_learns_from_a_cache_while_bckd_asks_the_teacher(tmp_path, monkeypatch):
    monkeypatch.setattr(NoiseDetection, 'identity', lambda self: 'noise', raising=False)
    cfg, values = narrow('GFL'), []
    teacher = saved(tmp_path, cfg)
    for cache in ({}, dict(teacher_cache=dict(folder=str(tmp_path / 'cache'), views=1,
                                              terms=['ld']))):
        config = train_config(tmp_path / 'run', cfg, iters=1, batch=2, **cache)
        distil(config, [teacher], ['ld', 'bckd'])
        fix_views(config)
        run = runner(config)
        run.train()
        values.append([run.message_hub.log_scalars[f'train/loss_distill_{name}'].data[0].item()
                       for name in ('ld', 'bckd')])
    assert type(distillation_hook(run).teachers[0]).__name__ == 'CachedTeacher'
    assert values[1] == pytest.approx(values[0], rel=1e-2)  # stored in float16


@pytest.mark.parametrize('method', METHODS)
def test_a_term_that_asks_the_teacher_is_not_cached(method, tmp_path):
    config = train_config(tmp_path / 'run', narrow('GFL'), teacher_cache=dict(
        folder=str(tmp_path / 'cache'), views=1))
    distil(config, [saved(tmp_path, narrow('GFL'))], [method])
    fix_views(config)
    with pytest.raises(UserError, match=f"'{method}' needs its teachers in every step.*leave this "
                                        r'term out of teacher_cache\.terms'):
        runner(config).train()
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
    assert 'give the student as many feat_channels' in _meet(_term('crosskd'), detectors['GFL'],
                                                             build(wide))
    for convs in (0, 5):
        assert 'give a number from 1 to that' in _meet(
            _term('crosskd', convs=convs), detectors['GFL'], detectors['GFL'])
    assert 'centerness_weight' in _meet(_term('crosskd', loss=dict(centerness_weight=1.0)),
                                        detectors['ATSS'], detectors['GFL'])
    assert "box='giou'" in _meet(_term('crosskd', loss=dict(box='distribution')),
                                 detectors['ATSS'], detectors['ATSS'])
