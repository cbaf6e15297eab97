"""The distillation terms of detectors in a run: what they add, leave alone and refuse."""

import copy
import functools

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


@pytest.fixture(scope='module')
def teachers(tmp_path_factory):
    folder = tmp_path_factory.mktemp('teachers')
    return dict(resnet=save_teacher(folder, 'resnet', centernet(channels=16, base_channels=8)),
                hourglass=save_teacher(folder, 'hourglass', centernet(stacks=2), seed=2))


def _hooks(teachers, *terms, **changes):
    return distillation(teachers, centernet_terms(*terms, **changes))


def _run(tmp_path, hooks, iters=2, model=None, **extra):
    run = runner(train_config(tmp_path, model or centernet(), hooks, iters=iters, **extra))
    run.train()
    return run


def _first_losses(tmp_path, hooks, **extra):
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


@pytest.mark.parametrize(('terms', 'kinds'), [
    (RECIPE, ('SoftFocalLoss', 'WidthHeightLoss', 'OffsetLoss', 'PKDLoss')),
    (SOURCE, ('HeatmapLoss', 'PeakWidthHeightLoss', 'PeakOffsetLoss', 'AttentionLoss'))])
def test_every_term_adds_its_weighted_loss(tmp_path, teachers, terms, kinds):
    hooks = distillation(teachers, {name: dict(term, joint='each') for name, term in terms.items()})
    got, model, batch, run = _first_losses(tmp_path, hooks, distill_weights=W)
    feature = model.extract_feat(batch['inputs'])
    heat, wh, offset = (m[-1] for m in model.bbox_head(feature))
    last = distillation_hook(run).terms[3]
    heat_loss, wh_loss, offset_loss, feature_loss = (getattr(losses, kind)() for kind in kinds)
    sums = dict.fromkeys(terms, 0.0)
    for name, entry in teachers.items():
        (t_heat, t_wh, t_offset), t_feature = _maps_of(entry, batch, model)
        branch = last.branches[name]
        connector = branch.connectors[0] if branch.connectors else torch.nn.Identity()
        sums['heatmap'] += 0.5 * heat_loss(heat, t_heat)
        sums['wh'] += 0.5 * wh_loss(wh, t_wh, t_heat)
        sums['offset'] += 0.5 * offset_loss(offset, t_offset, t_heat)
        sums[last.name] += 0.5 * feature_loss(connector(feature[-1]), t_feature)
    joined = {name for name, branch in last.branches.items() if branch.connectors}
    assert joined == {'resnet'}, '8 channels meet 16; the Hourglass has 8'
    for weight, (name, expected) in zip(W, sums.items(), strict=True):
        torch.testing.assert_close(got[f'loss_distill_{name}'], weight * expected,
                                   rtol=1e-4, atol=1e-6)
    own = {k for k in got if 'distill' not in k}
    assert own == {'loss_center_heatmap', 'loss_wh', 'loss_offset'}


def test_teachers_weights_are_shares(tmp_path, teachers):
    weighted = {name: dict(entry, weight=w) for (name, entry), w in
                zip(teachers.items(), (3.0, 1.0), strict=True)}
    got, model, batch, _ = _first_losses(
        tmp_path, _hooks(weighted, 'heatmap', weight=1.0, joint='each'))
    heat = model.bbox_head(model.extract_feat(batch['inputs']))[0][-1]
    parts = [losses.SoftFocalLoss()(heat, _maps_of(entry, batch, model)[0][0])
             for entry in teachers.values()]
    torch.testing.assert_close(got['loss_distill_heatmap'], 0.75 * parts[0] + 0.25 * parts[1])


@pytest.mark.parametrize('joint', ['labels', 'certainty', 'each', 'mean', 'max', 'confidence'])
@pytest.mark.parametrize('count', [1, 2])
def test_every_rule_trains(tmp_path, teachers, joint, count):
    some = dict(list(teachers.items())[:count])
    hooks = _hooks(some, 'heatmap', 'wh', 'offset', weight=1.0, joint=joint)
    run = _run(tmp_path, hooks, iters=1)
    assert all(p.isfinite().all() for p in run.model.parameters())


def test_all_weights_zero_is_training_without_hooks_bit_for_bit(tmp_path, teachers):
    plain = _run(tmp_path / 'plain', [])
    zero = _run(tmp_path / 'zero', _hooks(teachers), distill_weights=(0, 0, 0, 0))
    distilled = _run(tmp_path / 'distilled', _hooks(teachers), distill_weights=W)
    for key, value in plain.model.state_dict().items():
        assert torch.equal(value, zero.model.state_dict()[key]), key
    assert not torch.equal(plain.model.bbox_head.heatmap_head[0].weight,
                           distilled.model.bbox_head.heatmap_head[0].weight)


def test_the_first_step_sees_the_same_data_and_weights(tmp_path, teachers):
    """Building teachers and connectors must not draw from the run's random numbers."""
    plain, *_ = _first_losses(tmp_path / 'plain', [])
    distilled, *_ = _first_losses(tmp_path / 'distilled', _hooks(teachers), distill_weights=W)
    for key, value in plain.items():
        assert torch.equal(value, distilled[key]), key


def test_checkpoint_holds_the_student_and_beside_it_the_connectors(tmp_path, teachers):
    run = _run(tmp_path, _hooks(teachers), distill_weights=W)
    saved = load_checkpoint_safely(run.work_dir + '/iter_2.pth')  # mmengine's extras are harmless
    assert set(saved['state_dict']) == set(build(centernet()).state_dict())
    assert set(saved['distillation']) == {'heatmap', 'wh', 'offset', 'feature'}
    means = {'mean_error', 'steps'}  # of each teacher's errors, by which terms weigh it
    assert set(saved['distillation']['wh']['hourglass']) == means
    found = {name: set(branch) for name, branch in saved['distillation']['feature'].items()}
    assert found == dict(resnet=means | {'connectors.0.conv.weight', 'connectors.0.conv.bias'},
                         hourglass=means)


def test_resume_restores_student_connectors_and_optimizer(tmp_path, teachers):
    whole = _run(tmp_path / 'whole', _hooks(teachers), iters=4, distill_weights=W)
    _run(tmp_path / 'part', _hooks(teachers), iters=2, distill_weights=W)
    resumed = _run(tmp_path / 'part', _hooks(teachers), iters=4, distill_weights=W, resume=True)
    saved = [torch.load(f'{run.work_dir}/iter_4.pth', weights_only=False)
             for run in (whole, resumed)]
    for key, value in saved[0]['state_dict'].items():
        assert torch.equal(value, saved[1]['state_dict'][key]), key
    for term, branches in saved[0]['distillation'].items():
        for name, branch in branches.items():
            for key, value in branch.items():
                assert torch.equal(value, saved[1]['distillation'][term][name][key]), (name, key)


def test_connectors_learn(tmp_path, teachers):
    run = _run(tmp_path, _hooks(teachers), iters=2, distill_weights=W)
    saved = [torch.load(f'{run.work_dir}/iter_{i}.pth', weights_only=False)['distillation']
             ['feature']['resnet']['connectors.0.conv.weight'] for i in (1, 2)]
    assert not torch.equal(*saved)


def test_resume_with_other_teachers_is_refused(tmp_path, teachers):
    _run(tmp_path, _hooks(teachers), distill_weights=W)
    hooks = _hooks(dict(other=teachers['resnet']))
    with pytest.raises(UserError, match='resume with the terms and teachers it was trained with'):
        _run(tmp_path, hooks, iters=4, distill_weights=W, resume=True)


def test_deepcopy_of_the_student_takes_no_teacher_along(tmp_path, teachers):
    run = runner(train_config(tmp_path, centernet(), _hooks(teachers), iters=1, distill_weights=W))

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
    first = _run(tmp_path / 'first', _hooks(teachers), iters=1, distill_weights=W)
    batch = first.model.data_preprocessor(pseudo_collate([NoiseDetection()[0]]), True)
    assert not [name for name in first.model(**batch, mode='loss') if 'distill' in name]
    calls = []
    for name, hooks in (('again', _hooks(teachers)), ('alone', [])):
        weights = dict(distill_weights=W) if hooks else {}
        run = runner(train_config(tmp_path / name, centernet(), hooks, iters=1, **weights))
        run.model = first.model
        for hook in (distillation_hook(one) for one in (first, run) if hooks):
            hook._losses = functools.partial(_counted, calls, hook._losses)
        run.train()
        logged = [key for key in run.message_hub.log_scalars if 'loss_distill' in key]
        assert len(logged) == (4 if hooks else 0)
    assert len(calls) == 1


def _counted(calls, function, *args):
    calls.append(args)
    return function(*args)


def test_a_hourglass_student_learns_in_its_last_stack(tmp_path, teachers):
    run = _run(tmp_path, _hooks(teachers), model=centernet(stacks=2), distill_weights=W)
    assert all(p.isfinite().all() for p in run.model.parameters())


def test_a_teacher_of_another_stride_and_other_class_order(tmp_path):
    # Two deconvolutions leave stride 8; the classes come in another order, with one more.
    order = ('star', 'cross', 'disc', 'ring')
    entry = save_teacher(tmp_path, 'coarse', centernet(num_classes=4, deconvs=2), classes=order)
    hooks = _hooks(dict(coarse=entry), 'heatmap', weight=1.0, loss=dict(type='HeatmapLoss'))
    got, model, batch, _ = _first_losses(tmp_path, hooks)
    heat = model.bbox_head(model.extract_feat(batch['inputs']))[0][-1]
    (t_heat, *_), _ = _maps_of(entry, batch, model)
    target = torch.nn.functional.interpolate(
        torch.stack([t_heat[:, order.index(c)] for c in CLASSES], 1), heat.shape[-2:],
        mode='bilinear')
    torch.testing.assert_close(got['loss_distill_heatmap'], (heat - target).square().mean())


def test_a_teacher_with_other_classes_is_refused(tmp_path):
    entry = save_teacher(tmp_path, 'other', centernet(), classes=('disc', 'ring', 'cross'))
    with pytest.raises(UserError, match=r"\['disc', 'ring', 'star'\], the teacher \['disc', 'rin"):
        _run(tmp_path, _hooks(dict(other=entry)), distill_weights=W)


def test_a_teacher_of_unknown_classes_is_refused_if_their_number_differs(tmp_path):
    entry = save_teacher(tmp_path, 'other', centernet(num_classes=5), classes=None)
    with pytest.raises(UserError, match='has 5 classes and the student 3'):
        _run(tmp_path, _hooks(dict(other=entry)), distill_weights=W)


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
        _run(tmp_path, _hooks({}), distill_weights=W)
    with pytest.raises(UserError, match='nothing to teach'):
        _run(tmp_path, distillation(teachers, {}))
    with pytest.raises(UserError, match="teacher 'resnet' has the keys"):
        _run(tmp_path, _hooks(dict(resnet=dict(confg='x'))), distill_weights=W)


def test_teachers_terms_and_weights_as_config_lines(tmp_path, teachers):
    run = _run(tmp_path, distillation(), iters=1, teachers=teachers, terms=RECIPE,
               distill_weights=[1, 0, 0, 0])
    hook = distillation_hook(run)
    assert [t.name for t in hook.teachers] == ['resnet', 'hourglass']
    assert [t.name for t in hook.terms] == ['heatmap'], 'a term of weight 0 is left out'


def test_a_generic_term_by_tap_and_loss(tmp_path, teachers):
    """Any layer, any loss: the term that the classification branch uses as well."""
    generic = dict(tap='neck:-1', loss=dict(type='AttentionLoss'), weight=2.0,
                   connector=dict(type='ConvConnector'))
    hooks = distillation(dict(resnet=teachers['resnet']), dict(neck=generic))
    got, *_ = _first_losses(tmp_path, hooks)
    assert got['loss_distill_neck'] > 0


@pytest.mark.parametrize('wrapper', [dict(type='CPUAmpOptimWrapper'),
                                     dict(type='OptimWrapper', accumulative_counts=2)])
def test_mixed_precision_and_gradient_accumulation(tmp_path, teachers, wrapper):
    config = train_config(tmp_path, centernet(), _hooks(teachers), iters=2, distill_weights=W)
    config.optim_wrapper.update(wrapper)
    run = runner(config)
    run.train()
    assert all(p.isfinite().all() for p in run.model.parameters())
    log = run.message_hub.log_scalars
    added = {key: log[f'train/{key}'].current() for key in (
        'loss_distill_heatmap', 'loss_distill_wh', 'loss_distill_offset',
        'loss_distill_feature')}
    assert all(0 < value < float('inf') for value in added.values()), added


@pytest.mark.parametrize('name', ['RetinaNet', 'FCOS'])
def test_what_is_no_centernet_is_named(tmp_path, teachers, name):
    """An FCOS head has as many outputs as a CenterNet's, of another meaning."""
    from dense_zoo import narrow
    others = save_teacher(tmp_path, 'other', narrow(name))
    for hooks, model, who in (
            (_hooks(teachers, 'heatmap'), narrow(name), 'the student'),
            (_hooks(teachers, 'feature'), narrow(name), 'the student'),
            (_hooks(dict(other=others), 'wh'), centernet(), "teacher 'other'")):
        with pytest.raises(UserError, match=rf"Term and {who} no CenterNet \({name}, head .*pkd"):
            _run(tmp_path, hooks, model=model)
