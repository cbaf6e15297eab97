"""Features weighted by a teacher's scores: what these are, and the term through whole steps."""

from types import SimpleNamespace

import pytest
import torch
from dense_zoo import HEADS, build, distilled, narrow, one_more_step, refusal, saved, values
from formulas import sigmoid
from helpers import distillation_hook
from mmengine.config import Config
from zoo import model

from mmkd.detection.score_term import ScoreTerm, scores_of
from mmkd.distillation.step import Step
from mmkd.distillation.taps import flat
from mmkd.distillation.teachers import Teacher
from mmkd.errors import UserError
from mmkd.registry import MODELS


def test_scores_equal_their_formula_in_loops():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 6, 2, 3, dtype=torch.float64, generator=generator)
    factors = torch.randn(2, 2, 2, 3, dtype=torch.float64, generator=generator)
    for given in (None, factors):
        expected = [[[max(sigmoid(logits[b, 3 * a + c, y, x].item())
                          * (1 if given is None else sigmoid(given[b, a, y, x].item()))
                          for a in range(2) for c in range(3))
                      for x in range(3)] for y in range(2)] for b in range(2)]
        torch.testing.assert_close(scores_of(logits, given),
                                   torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize('name', [*HEADS, 'RTMDet', 'YOLOX'])
def test_the_highest_score_is_that_of_the_heads_best_box(name):
    """MMDetection scores its boxes by the same products, whatever the head."""
    detector = build(narrow(name) if name in HEADS else model(name)).eval()
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        maps = detector.bbox_head(detector.extract_feat(images))
        [found] = detector.bbox_head.predict_by_feat(
            *maps, batch_img_metas=[dict(img_shape=(64, 64), scale_factor=(1, 1))],
            cfg=Config(dict(score_thr=0.0, nms_pre=10_000)), with_nms=False)
    factors = maps[2] if len(maps) > 2 else [None] * len(maps[0])
    best = max(scores_of(*level).max().item() for level in zip(maps[0], factors, strict=True))
    assert best == pytest.approx(found.scores.max().item(), rel=1e-5)
    term = ScoreTerm(dict(type='ScoreWeightedL2Loss'), tap='neck:*')
    term.meet(detector, [SimpleNamespace(name='big', model=detector)])


def _distilled(folder, teacher, **options):
    return distilled(folder, narrow('RetinaNet'), teacher, ['score_l2'], iters=1, **options)


def _by_hand(run):
    """The loss of one more step, once as trained and once by its formula in float64."""
    inputs, losses, reached = one_more_step(run)
    hook = distillation_hook(run)
    [teacher], [term] = hook.teachers, hook.terms
    with torch.no_grad():
        own = run.model.extract_feat(inputs['inputs'])
        theirs = teacher.model.extract_feat(inputs['inputs'])
        logits, _, centerness = teacher.model.bbox_head(theirs)
    total = 0.0
    for level, connector in enumerate(term.branches[teacher.name].connectors):
        first, _, second = (layer.double() for layer in connector.layers)
        with torch.no_grad():
            student = second(first(own[level].double()).clamp(min=0))
        best = logits[level].double().max(1, keepdim=True).values
        q = torch.sigmoid(best) * torch.sigmoid(centerness[level].double())
        errors = q * (student - theirs[level].double()) ** 2
        total += (errors.sum() / (q.sum() * student.shape[1] + 1e-9)).item()
        connector.float()
    return losses['score_l2'], 6 * total, reached['score_l2']


def test_a_whole_step_equals_the_formula(tmp_path):
    fcos = narrow('FCOS')
    fcos.data_preprocessor = narrow('RetinaNet').data_preprocessor  # is fed what the student is
    _, (value, expected, reached) = _distilled(tmp_path, saved(tmp_path, fcos), look=_by_hand)
    assert value == pytest.approx(expected, rel=1e-4)
    assert reached['backbone.layer2.0.conv1.weight'] > 0
    assert 'bbox_head.retina_cls.weight' not in reached


def test_a_cache_serves(tmp_path, cache):
    teacher = saved(tmp_path, narrow('ATSS'))
    live, _ = _distilled(tmp_path, teacher)
    cached, _ = _distilled(tmp_path, teacher, teacher_cache=cache)
    assert distillation_hook(cached).teachers[0].model is None
    expected, found = (values(run, 'score_l2')[0] for run in (live, cached))
    assert found == pytest.approx(expected, rel=1e-2)  # stored in float16


@pytest.mark.parametrize(('name', 'kind'), [
    ('VFNet', 'the head VFNetHead'), ('TOOD', 'the head TOODHead'), ('PAA', 'the head PAAHead'),
    ('Faster R-CNN', 'no bbox_head'), ('CenterNet', 'the head CenterNetHead'),
    ('DETR', 'the head DETRHead')])
def test_other_heads_are_named(name, kind):
    term = ScoreTerm(dict(type='ScoreWeightedL2Loss'), tap='neck:*')
    term.name = 'score_l2'
    other = MODELS.build(model(name))
    message = refusal(term, other, other)
    assert (f"teacher 'big' ({type(other).__name__}) has {kind}: take one of these, or a method "
            in message) and 'such as pkd' in message


def test_a_head_is_refused_before_a_cache_is_built(tmp_path, cache):
    teacher = saved(tmp_path, model('PAA'))
    with pytest.raises(UserError, match='has the head PAAHead'):
        _distilled(tmp_path, teacher, teacher_cache=cache)
    assert not list((tmp_path / 'cache').rglob('*.shard'))


def _step(detector, tap):
    inputs = torch.zeros(1, 3, 64, 64)
    teacher = Teacher('t', detector)
    term = ScoreTerm(dict(type='ScoreWeightedL2Loss'), tap=tap)
    term.name = 'score_l2'
    found = teacher.tap(term.teacher_patterns(), inputs)
    step = Step(flat(found), [teacher], dict(t=flat(found)), None, inputs=inputs)
    term.pair(found, dict(t=found), step)
    return term, step


def test_a_level_has_the_scores_of_its_number():
    detector = build(narrow('GFL'))
    term, step = _step(detector, ['neck:3', 'neck:1'])
    found = term.own_facts(step, 't')['teacher_scores']
    for scores, level in zip(found, (3, 1), strict=True):
        logits = step.taps['t'][f'bbox_head:0:{level}']
        torch.testing.assert_close(scores, logits.sigmoid().max(1).values)


@pytest.mark.parametrize('tap', ['neck:-1', 'backbone:0', 'neck.fpn_convs.1.conv'])
def test_a_tap_that_is_no_level_of_the_head(tap):
    term, step = _step(build(narrow('GFL')), tap)
    with pytest.raises(UserError, match=rf"no scores of teacher 't' for '{tap}'.*neck:\*"):
        term.own_facts(step, 't')
