"""The distillation hooks in a run: what they add, what they leave alone, what they refuse."""

import copy

import pytest
import torch
from helpers import CLASSES, NoiseDetection, build, centernet, runner, save_teacher, train_config
from mmengine.dataset import pseudo_collate

from mmkd.distillation import load_checkpoint_safely, losses
from mmkd.distillation.distill_hook import DistillHook
from mmkd.distillation.teachers import build_teacher
from mmkd.errors import UserError

TERMS = ('HeatmapDistillHook', 'WidthHeightDistillHook', 'OffsetDistillHook',
         'FeatureDistillHook')
W = (1.0, 2.0, 0.1, 20.0)
SOURCE = [dict(type='HeatmapDistillHook', loss=dict(type='HeatmapLoss')),
          dict(type='WidthHeightDistillHook', loss=dict(type='PeakWidthHeightLoss')),
          dict(type='OffsetDistillHook', loss=dict(type='PeakOffsetLoss')),
          dict(type='AttentionDistillHook')]
RECOMMENDED = [dict(type=term) for term in TERMS]


@pytest.fixture(scope='module')
def teachers(tmp_path_factory):
    folder = tmp_path_factory.mktemp('teachers')
    return dict(resnet=save_teacher(folder, 'resnet', centernet(channels=16, base_channels=8)),
                hourglass=save_teacher(folder, 'hourglass', centernet(stacks=2), seed=2))


def _hooks(teachers, terms=TERMS, **kwargs):
    return [dict(type='TeacherHook', teachers=teachers), *(dict(type=t, **kwargs) for t in terms)]


def _run(tmp_path, hooks, iters=2, model=None, **extra):
    run = runner(train_config(tmp_path, model or centernet(), hooks, iters=iters, **extra))
    run.train()
    return run


def _first_losses(tmp_path, hooks, **extra):
    """The student's and the added losses of one batch, and the runner, before any update."""
    config = train_config(tmp_path, centernet(), hooks, iters=1, **extra)
    config.optim_wrapper.optimizer = dict(type='SGD', lr=0.0)
    run = runner(config)
    run.train()
    model = run.model.train()
    batch = model.data_preprocessor(pseudo_collate([NoiseDetection()[i] for i in range(4)]), True)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    return model(**batch, mode='loss'), model, batch, run


def _maps_of(entry, batch, model):
    teacher = build_teacher('t', entry['config'], entry['checkpoint'], model.data_preprocessor,
                            torch.device('cpu'))
    with torch.no_grad():
        feature = teacher.model.extract_feat(batch['inputs'])
        return [m[-1] for m in teacher.model.bbox_head(feature)], feature[-1]


@pytest.mark.parametrize(('terms', 'kinds'), [
    (RECOMMENDED, ('SoftFocalLoss', 'WidthHeightLoss', 'OffsetLoss', 'PKDLoss')),
    (SOURCE, ('HeatmapLoss', 'PeakWidthHeightLoss', 'PeakOffsetLoss', 'AttentionLoss'))])
def test_every_term_adds_its_weighted_loss(tmp_path, teachers, terms, kinds):
    hooks = [dict(type='TeacherHook', teachers=teachers), *(dict(t, joint='each') for t in terms)]
    got, model, batch, run = _first_losses(tmp_path, hooks, distill_weights=W)
    feature = model.extract_feat(batch['inputs'])
    heat, wh, offset = (m[-1] for m in model.bbox_head(feature))
    last = next(h for h in run.hooks if getattr(h, 'position', None) == 3)
    heat_loss, wh_loss, offset_loss, feature_loss = (getattr(losses, kind)() for kind in kinds)
    names = ('heatmap', 'wh', 'offset', last.name.removeprefix('distill_'))
    sums = dict.fromkeys(names, 0.0)
    for name, entry in teachers.items():
        (t_heat, t_wh, t_offset), t_feature = _maps_of(entry, batch, model)
        branch = last.branches[name]
        connector = branch.connectors[0] if branch.connectors else torch.nn.Identity()
        sums['heatmap'] += 0.5 * heat_loss(heat, t_heat)
        sums['wh'] += 0.5 * wh_loss(wh, t_wh, t_heat)
        sums['offset'] += 0.5 * offset_loss(offset, t_offset, t_heat)
        sums[names[3]] += 0.5 * feature_loss(connector(feature[-1]), t_feature)
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
        tmp_path, _hooks(weighted, TERMS[:1], weight=1.0, joint='each'))
    heat = model.bbox_head(model.extract_feat(batch['inputs']))[0][-1]
    parts = [losses.SoftFocalLoss()(heat, _maps_of(entry, batch, model)[0][0])
             for entry in teachers.values()]
    torch.testing.assert_close(got['loss_distill_heatmap'], 0.75 * parts[0] + 0.25 * parts[1])


@pytest.mark.parametrize('joint', ['labels', 'certainty', 'each', 'mean', 'max', 'confidence'])
@pytest.mark.parametrize('count', [1, 2])
def test_every_rule_trains(tmp_path, teachers, joint, count):
    some = dict(list(teachers.items())[:count])
    run = _run(tmp_path, _hooks(some, TERMS[:3], weight=1.0, joint=joint), iters=1)
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
    assert set(saved['distillation']) == {'distill_feature'}
    assert set(saved['distillation']['distill_feature']) == {'resnet'}


def test_resume_restores_student_connectors_and_optimizer(tmp_path, teachers):
    whole = _run(tmp_path / 'whole', _hooks(teachers), iters=4, distill_weights=W)
    _run(tmp_path / 'part', _hooks(teachers), iters=2, distill_weights=W)
    resumed = _run(tmp_path / 'part', _hooks(teachers), iters=4, distill_weights=W, resume=True)
    saved = [torch.load(f'{run.work_dir}/iter_4.pth', weights_only=False)
             for run in (whole, resumed)]
    for key, value in saved[0]['state_dict'].items():
        assert torch.equal(value, saved[1]['state_dict'][key]), key
    connectors = [s['distillation']['distill_feature']['resnet'] for s in saved]
    for key, value in connectors[0].items():
        assert torch.equal(value, connectors[1][key]), key


def test_connectors_learn(tmp_path, teachers):
    run = _run(tmp_path, _hooks(teachers), iters=2, distill_weights=W)
    saved = [torch.load(f'{run.work_dir}/iter_{i}.pth', weights_only=False)['distillation']
             ['distill_feature']['resnet']['connectors.0.conv.weight'] for i in (1, 2)]
    assert not torch.equal(*saved)


def test_resume_with_other_teachers_is_refused(tmp_path, teachers):
    _run(tmp_path, _hooks(teachers), distill_weights=W)
    hooks = _hooks(dict(other=teachers['resnet']))
    with pytest.raises(UserError, match='resume with the terms and teachers it was trained with'):
        _run(tmp_path, hooks, iters=4, distill_weights=W, resume=True)


def test_deepcopy_of_the_student_takes_no_teacher_along(tmp_path, teachers):
    run = _run(tmp_path, _hooks(teachers), distill_weights=W)
    twin = copy.deepcopy(run.model)
    assert set(twin.state_dict()) == set(run.model.state_dict())
    batch = run.model.data_preprocessor(pseudo_collate([NoiseDetection()[0]]), True)
    assert 'loss_distill_heatmap' in run.model(**batch, mode='loss')
    assert 'loss_distill_heatmap' not in twin(**batch, mode='loss'), 'only the student learns'


def test_a_hourglass_student_learns_in_its_last_stack(tmp_path, teachers):
    run = _run(tmp_path, _hooks(teachers), model=centernet(stacks=2), distill_weights=W)
    assert all(p.isfinite().all() for p in run.model.parameters())


def test_a_teacher_of_another_stride_and_other_class_order(tmp_path):
    # Two deconvolutions leave stride 8; the classes come in another order, with one more.
    order = ('star', 'cross', 'disc', 'ring')
    entry = save_teacher(tmp_path, 'coarse', centernet(num_classes=4, deconvs=2), classes=order)
    hooks = _hooks(dict(coarse=entry), TERMS[:1], weight=1.0, loss=dict(type='HeatmapLoss'))
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
    with pytest.raises(UserError, match="term 'distill' has weight"):
        DistillHook(dict(type='HeatmapLoss'), 'neck', weight=weight)


@pytest.mark.parametrize('weights', [None, (1, 2, 3), (1000, 1, 0.1, -1), 'W'])
def test_distill_weights_must_hold_four_numbers(tmp_path, teachers, weights):
    with pytest.raises(UserError, match=r"term 'distill_\w+' has (no )?weight"):
        _run(tmp_path, _hooks(teachers), distill_weights=weights)


def test_two_hooks_of_one_kind_need_names(tmp_path, teachers):
    with pytest.raises(UserError, match="two distillation hooks are called 'distill_heatmap'"):
        _run(tmp_path, _hooks(teachers, TERMS[:1] * 2, weight=1.0))


def test_a_teacher_hook_without_teachers_or_terms(tmp_path, teachers):
    with pytest.raises(UserError, match='TeacherHook has no teachers'):
        _run(tmp_path, _hooks({}), distill_weights=W)
    with pytest.raises(UserError, match='nothing to teach'):
        _run(tmp_path, _hooks(teachers, ()))
    with pytest.raises(UserError, match="teacher 'resnet' has the keys"):
        _run(tmp_path, _hooks(dict(resnet=dict(confg='x'))), distill_weights=W)


def test_teachers_and_weights_as_config_lines(tmp_path, teachers):
    hooks = [dict(type='TeacherHook'), *(dict(type=t) for t in TERMS)]
    run = _run(tmp_path, hooks, iters=1, teachers=teachers, distill_weights=[1, 0, 0, 0])
    hook = next(h for h in run.hooks if type(h).__name__ == 'TeacherHook')
    assert [t.name for t in hook.teachers] == ['resnet', 'hourglass']
    assert [t.name for t in hook.terms] == ['distill_heatmap'], 'a term of weight 0 is left out'


def test_a_generic_term_by_tap_and_loss(tmp_path, teachers):
    """Any layer, any loss: the hook that the classification branch uses as well."""
    generic = dict(type='DistillHook', tap='neck', loss=dict(type='AttentionLoss'), weight=2.0,
                   connector=dict(type='ConvConnector'), name='neck')
    hooks = [dict(type='TeacherHook', teachers=dict(resnet=teachers['resnet'])), generic]
    got, *_ = _first_losses(tmp_path, hooks)
    assert got['loss_neck'] > 0


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
