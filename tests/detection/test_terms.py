"""The distillation terms of detectors in a run: what they add, leave alone and refuse."""

import copy
from unittest.mock import Mock

import pytest
import torch
from helpers import (
    CLASSES,
    RECIPE,
    AtTheEnd,
    NoiseDetection,
    build,
    centernet,
    centernet_terms,
    distillation,
    distillation_hook,
    runner,
    save_teacher,
    train_config,
)
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook

from mmkd.distillation import load_checkpoint_safely, losses
from mmkd.distillation.entries import built_terms
from mmkd.distillation.teachers import build_teacher
from mmkd.errors import UserError

W = (1.0, 2.0, 0.1, 20.0)
SOURCE = dict(
    heatmap=dict(type='CenterNetTerm', map='heatmap', loss=dict(type='HeatmapLoss')),
    wh=dict(type='CenterNetTerm', map='wh', loss=dict(type='PeakWidthHeightLoss')),
    offset=dict(type='CenterNetTerm', map='offset', loss=dict(type='PeakOffsetLoss')),
    attention=dict(type='FeatureTerm', loss=dict(type='AttentionLoss')))


def hooks_of(teachers, *terms, **changes):
    return distillation(teachers, centernet_terms(*terms, **changes))


def _run(tmp_path, hooks, iters=2, model=None, **extra):
    run = runner(train_config(tmp_path, model or centernet(), hooks, iters=iters, **extra))
    run.train()
    return run


def first_losses(tmp_path, hooks, **extra):
    """The student's and the added losses of one batch, and the runner, before any update."""
    config = train_config(tmp_path, centernet(), hooks, iters=1, **extra)
    config.optim_wrapper.optimizer = dict(type='SGD', lr=0.0)
    run = runner(config)

    def look(run):
        model = run.model.train()
        batch = model.data_preprocessor(
            pseudo_collate([NoiseDetection()[i] for i in range(4)]), True)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        return model(**batch, mode='loss'), model, batch, run

    end = AtTheEnd(look)
    run.register_hook(end)
    run.train()
    return end.found


def _maps_of(entry, batch, model):
    teacher = build_teacher('t', entry['config'], entry['checkpoint'], model.data_preprocessor,
                            torch.device('cpu'))
    with torch.no_grad():
        feature = teacher.model.extract_feat(batch['inputs'])
        return [m[-1] for m in teacher.model.bbox_head(feature)], feature[-1]


@pytest.mark.parametrize(('terms', 'kinds', 'own', 'shares'), [
    (RECIPE, ('SoftFocalLoss', 'WidthHeightLoss', 'OffsetLoss', 'PKDLoss'),
     ({}, {}), (0.5, 0.5)),
    (SOURCE, ('HeatmapLoss', 'PeakWidthHeightLoss', 'PeakOffsetLoss', 'AttentionLoss'),
     (dict(weight=3.0), dict(weight=1.0)), (0.75, 0.25))])
def test_every_term_adds_its_weighted_loss(tmp_path, teachers, terms, kinds, own, shares):
    """Of each teacher by its share of their weights."""
    weighted = {name: teachers[name] | one for name, one in zip(teachers, own, strict=True)}
    hooks = distillation(weighted, {name: dict(term, joint='each') for name, term in terms.items()})
    got, model, batch, run = first_losses(tmp_path, hooks, distill_weights=W)
    feature = model.extract_feat(batch['inputs'])
    heat, wh, offset = (m[-1] for m in model.bbox_head(feature))
    last = distillation_hook(run).terms[3]
    heat_loss, wh_loss, offset_loss, feature_loss = (getattr(losses, kind)() for kind in kinds)
    sums = dict.fromkeys(terms, 0.0)
    for (name, entry), share in zip(teachers.items(), shares, strict=True):
        (t_heat, t_wh, t_offset), t_feature = _maps_of(entry, batch, model)
        branch = last.branches[name]
        connector = branch.connectors[0] if branch.connectors else torch.nn.Identity()
        sums['heatmap'] += share * heat_loss(heat, t_heat)
        sums['wh'] += share * wh_loss(wh, t_wh, t_heat)
        sums['offset'] += share * offset_loss(offset, t_offset, t_heat)
        sums[last.name] += share * feature_loss(connector(feature[-1]), t_feature)
    joined = {name for name, branch in last.branches.items() if branch.connectors}
    assert joined == {'resnet'}, '8 channels meet 16; the Hourglass has 8'
    for weight, (name, expected) in zip(W, sums.items(), strict=True):
        torch.testing.assert_close(got[f'loss_distill_{name}'], weight * expected,
                                   rtol=1e-4, atol=1e-6)
    own = {k for k in got if 'distill' not in k}
    assert own == {'loss_center_heatmap', 'loss_wh', 'loss_offset'}


@pytest.mark.parametrize('joint', ['labels', 'certainty', 'each', 'mean', 'max', 'confidence'])
@pytest.mark.parametrize('count', [1, 2])
def test_every_rule_trains(tmp_path, teachers, joint, count):
    some = dict(list(teachers.items())[:count])
    hooks = hooks_of(some, 'heatmap', 'wh', 'offset', weight=1.0, joint=joint)
    run = _run(tmp_path, hooks, iters=1)
    assert all(p.isfinite().all() for p in run.model.parameters())


def test_all_weights_zero_is_training_without_hooks_bit_for_bit(tmp_path, teachers):
    """And building teachers and connectors draws none of the run's random numbers."""
    plain = _run(tmp_path / 'plain', [])
    zero = _run(tmp_path / 'zero', hooks_of(teachers), distill_weights=(0, 0, 0, 0))
    distilled = _run(tmp_path / 'distilled', hooks_of(teachers), distill_weights=W)
    for key, value in plain.model.state_dict().items():
        assert torch.equal(value, zero.model.state_dict()[key]), key
    assert not torch.equal(plain.model.bbox_head.heatmap_head[0].weight,
                           distilled.model.bbox_head.heatmap_head[0].weight)
    for name in ('loss_center_heatmap', 'loss_wh', 'loss_offset'):
        first, same = (run.message_hub.log_scalars[f'train/{name}'].data[0][0]
                       for run in (plain, distilled))
        assert first == same, name


def test_checkpoint_holds_the_student_and_beside_it_the_connectors(tmp_path, teachers):
    run = _run(tmp_path, hooks_of(teachers), distill_weights=W)
    # mmengine's extras are harmless
    first, saved = (load_checkpoint_safely(f'{run.work_dir}/iter_{i}.pth') for i in (1, 2))
    assert set(saved['state_dict']) == set(build(centernet()).state_dict())
    assert set(saved['distillation']) == {'heatmap', 'wh', 'offset', 'feature'}
    means = {'mean_error', 'steps'}  # of each teacher's errors, by which terms weigh it
    assert set(saved['distillation']['wh']['hourglass']) == means
    found = {name: set(branch) for name, branch in saved['distillation']['feature'].items()}
    assert found == dict(resnet=means | {'connectors.0.conv.weight', 'connectors.0.conv.bias'},
                         hourglass=means)
    before, after = (one['distillation']['feature']['resnet']['connectors.0.conv.weight']
                     for one in (first, saved))
    assert not torch.equal(before, after), 'connectors learn'


def test_a_run_from_a_distilled_student_begins_with_its_connectors(tmp_path, teachers):
    """Of the same term and teacher, where the shapes agree; else with those of a new run."""
    taught = _run(tmp_path / 'taught', hooks_of(teachers), distill_weights=W)
    finished = f'{taught.work_dir}/iter_2.pth'

    class Start(Hook):
        def before_train(self, runner):
            self.state = copy.deepcopy(distillation_hook(runner).distillation.state_dict())

    def start(folder, hooks, load_from):
        run = runner(train_config(tmp_path / folder, centernet(), hooks, iters=1,
                                  distill_weights=W, load_from=load_from))
        run.register_hook(begun := Start())
        run.train()
        return begun.state['distillation']

    saved = load_checkpoint_safely(finished)
    torch.testing.assert_close(start('again', hooks_of(teachers), finished), saved['distillation'],
                               rtol=0, atol=0)
    name = 'connectors.0.conv.weight'
    new = start('new', hooks_of(teachers), None)['feature']['resnet'][name]
    assert not torch.equal(new, saved['distillation']['feature']['resnet'][name])
    other = start('other', hooks_of(dict(other=teachers['resnet'])), finished)
    assert torch.equal(other['feature']['other'][name], new), 'another teacher'
    saved['distillation']['feature']['resnet'][name] = torch.zeros(3, 3)
    saved['distillation']['wh'] = 'of another framework'
    torch.save(saved, tmp_path / 'changed.pth')
    changed = start('changed', hooks_of(teachers), str(tmp_path / 'changed.pth'))
    assert torch.equal(changed['feature']['resnet'][name], new), 'another shape'


def test_resume_restores_student_connectors_and_optimizer(tmp_path, teachers):
    whole = _run(tmp_path / 'whole', hooks_of(teachers), iters=4, distill_weights=W)
    _run(tmp_path / 'part', hooks_of(teachers), iters=2, distill_weights=W)
    again = dict(iters=4, distill_weights=W, resume=True)
    with pytest.raises(UserError, match='resume with the terms and teachers it was trained with'):
        _run(tmp_path / 'part', hooks_of(dict(other=teachers['resnet'])), **again)
    resumed = _run(tmp_path / 'part', hooks_of(teachers), **again)
    expected, found = (torch.load(f'{run.work_dir}/iter_4.pth', weights_only=False)
                       for run in (whole, resumed))
    for part in ('state_dict', 'distillation'):
        torch.testing.assert_close(found[part], expected[part], rtol=0, atol=0)


def test_deepcopy_of_the_student_takes_no_teacher_along(tmp_path, teachers):
    run = runner(train_config(tmp_path, centernet(), hooks_of(teachers), iters=1,
                              distill_weights=W))

    def look(run):
        twin = copy.deepcopy(run.model)
        assert set(twin.state_dict()) == set(run.model.state_dict())
        batch = run.model.data_preprocessor(pseudo_collate([NoiseDetection()[0]]), True)
        return [model(**batch, mode='loss') for model in (run.model, twin)]

    end = AtTheEnd(look)
    run.register_hook(end)
    run.train()
    assert 'loss_distill_heatmap' in end.found[0]
    assert 'loss_distill_heatmap' not in end.found[1], 'only the student learns'


def test_a_model_can_be_trained_again(tmp_path, teachers):
    """The hooks come off after the run: a second one adds its own terms once, or none."""
    first = _run(tmp_path / 'first', hooks_of(teachers), iters=1, distill_weights=W)
    batch = first.model.data_preprocessor(pseudo_collate([NoiseDetection()[0]]), True)
    assert not [name for name in first.model(**batch, mode='loss') if 'distill' in name]
    spies = []
    for name, hooks in (('again', hooks_of(teachers)), ('alone', [])):
        weights = dict(distill_weights=W) if hooks else {}
        run = runner(train_config(tmp_path / name, centernet(), hooks, iters=1, **weights))
        run.model = first.model
        for hook in (distillation_hook(one) for one in (first, run) if hooks):
            hook._losses = Mock(wraps=hook._losses)
            spies.append(hook._losses)
        run.train()
        logged = [key for key in run.message_hub.log_scalars if 'loss_distill' in key]
        assert len(logged) == (4 if hooks else 0)
    assert sum(spy.call_count for spy in spies) == 1


def test_a_teacher_of_another_stride_and_other_class_order(tmp_path):
    # Two deconvolutions leave stride 8; the classes come in another order, with one more.
    order = ('star', 'cross', 'disc', 'ring')
    entry = save_teacher(tmp_path, 'coarse', centernet(num_classes=4, deconvs=2), classes=order)
    hooks = hooks_of(dict(coarse=entry), 'heatmap', weight=1.0, loss=dict(type='HeatmapLoss'))
    got, model, batch, _ = first_losses(tmp_path, hooks)
    heat = model.bbox_head(model.extract_feat(batch['inputs']))[0][-1]
    (t_heat, *_), _ = _maps_of(entry, batch, model)
    target = torch.nn.functional.interpolate(
        torch.stack([t_heat[:, order.index(c)] for c in CLASSES], 1), heat.shape[-2:],
        mode='bilinear')
    torch.testing.assert_close(got['loss_distill_heatmap'], (heat - target).square().mean())


@pytest.mark.parametrize(('classes', 'number', 'message'), [
    (('disc', 'ring', 'cross'), 3, r"\['disc', 'ring', 'star'\], the teacher \['disc', 'rin"),
    (None, 5, 'has 5 classes and the student 3')])
def test_a_teacher_with_other_classes_is_refused(tmp_path, classes, number, message):
    entry = save_teacher(tmp_path, 'other', centernet(num_classes=number), classes)
    with pytest.raises(UserError, match=message):
        _run(tmp_path, hooks_of(dict(other=entry)), distill_weights=W)


@pytest.mark.parametrize('weight', [-1, float('nan'), float('inf'), '10', True])
def test_a_weight_that_is_no_number_of_at_least_zero(weight):
    with pytest.raises(UserError, match=r"term 'wh' has weight .*: give a number of at least 0"):
        built_terms(centernet_terms('wh', weight=weight), None)
    with pytest.raises(UserError, match=r"term 'wh' has weight .*: give a number of at least 0"):
        built_terms(centernet_terms('wh'), dict(wh=weight))


@pytest.mark.parametrize(('weights', 'message'), [
    ((1, 2, 3), 'a number for each of the terms heatmap, wh, offset, feature, in this order or by'),
    ('W', "distill_weights is 'W'"), (5, 'distill_weights is 5'),
    ((1000, 1, 0.1, -1), "term 'feature' has weight -1"),
    (dict(heatmap=1, wh=1, offset=1), "term 'feature' has no weight: add it to distill_weights"),
    (dict(heatmpa=1), r"distill_weights names 'heatmpa', which is no term of this config "
                      r"\(heatmap, wh, offset, feature\)\. Did you mean 'heatmap'")])
def test_distill_weights_must_fit_the_terms(weights, message):
    with pytest.raises(UserError, match=message) as caught:
        built_terms(RECIPE, weights)
    assert '\n' not in str(caught.value)


def test_a_term_takes_its_weight_from_one_place():
    terms = centernet_terms('heatmap') | centernet_terms('wh', weight=3.0)
    found = built_terms(terms, dict(heatmap=2.0))
    assert [(term.name, term.weight) for term in found] == [('heatmap', 2.0), ('wh', 3.0)]
    with pytest.raises(UserError, match=r"'wh' has weight 3\.0 and distill_weights gives it 4"):
        built_terms(terms, dict(heatmap=2.0, wh=4))
    assert [term.weight for term in built_terms(RECIPE, None)] == [1.0] * 4


def test_a_run_that_cannot_distil(tmp_path, teachers):
    with pytest.raises(UserError, match='DistillationHook has no teachers'):
        _run(tmp_path, hooks_of({}), distill_weights=W)
    with pytest.raises(UserError, match='nothing to teach'):
        _run(tmp_path, distillation(teachers, {}))
    with pytest.raises(UserError, match="teacher 'resnet' has the keys"):
        _run(tmp_path, hooks_of(dict(resnet=dict(confg='x'))), distill_weights=W)


def test_teachers_terms_and_weights_as_config_lines(tmp_path, teachers):
    run = _run(tmp_path, distillation(), iters=1, teachers=teachers, terms=RECIPE,
               distill_weights=[1, 0, 0, 0])
    hook = distillation_hook(run)
    assert [t.name for t in hook.teachers] == ['resnet', 'hourglass']
    assert [t.name for t in hook.terms] == ['heatmap'], 'a term of weight 0 is left out'


@pytest.mark.parametrize(('wrapper', 'stacks'), [
    (dict(type='CPUAmpOptimWrapper'), 0), (dict(type='OptimWrapper', accumulative_counts=2), 0),
    (dict(type='OptimWrapper'), 2)], ids=['mixed precision', 'accumulated', 'Hourglass'])
def test_other_ways_to_train(tmp_path, teachers, wrapper, stacks):
    config = train_config(tmp_path, centernet(stacks=stacks), hooks_of(teachers), iters=2,
                          distill_weights=W)
    config.optim_wrapper.update(wrapper)
    run = runner(config)
    run.train()
    assert all(p.isfinite().all() for p in run.model.parameters())
    added = {name: run.message_hub.log_scalars[f'train/loss_distill_{name}'].current()
             for name in RECIPE}
    assert all(0 < value < float('inf') for value in added.values()), added


@pytest.mark.parametrize('name', ['RetinaNet', 'FCOS'])
def test_what_is_no_centernet_is_named(tmp_path, teachers, name):
    """An FCOS head has as many outputs as a CenterNet's, of another meaning."""
    from dense_zoo import narrow
    others = save_teacher(tmp_path, 'other', narrow(name))
    for hooks, model, who in (
            (hooks_of(teachers, 'heatmap'), narrow(name), 'the student'),
            (hooks_of(teachers, 'feature'), narrow(name), 'the student'),
            (hooks_of(dict(other=others), 'wh'), centernet(), "teacher 'other'")):
        with pytest.raises(UserError, match=rf"Term and {who} no CenterNet \({name}, head .*pkd"):
            _run(tmp_path, hooks, model=model)
