"""Teachers give what the plain networks give, however they are run."""

import copy
import functools

import pytest
import torch
from helpers import (
    build,
    centernet,
    centernet_terms,
    distillation,
    runner,
    save_teacher,
    train_config,
)
from mmengine.config import ConfigDict
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from mmkd.distillation import inference
from mmkd.distillation.entries import checked_entries
from mmkd.distillation.inference import runs_channels_last
from mmkd.distillation.renormalisation import Renormalisation
from mmkd.distillation.student_teachers import MeanTeacher, PartnerTeacher
from mmkd.distillation.tap_paths import endpoint_of, endpoints
from mmkd.distillation.taps import flat
from mmkd.distillation.teachers import Teacher, build_teacher
from mmkd.errors import UserError
from mmkd.ops.deform_layer import ModulatedDeformConv2dPack


def _trained(model):
    """Batch norms as training leaves them."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    return model.eval()


def _with_backbone(channels, **backbone):
    config = centernet()
    config.backbone = ConfigDict(backbone)
    config.neck.in_channels = channels
    return config


def _classifier(backbone):
    return ConfigDict(type='Classifier', num_classes=5, backbone=dict(type=backbone))


def _plain(model, taps, inputs):
    """What each tapped leaf is in a full forward pass, copied as each module returns."""
    taps = [name for tap in taps for name in endpoints(model, tap)]
    calls, hooks = {endpoint_of(tap): [] for tap in taps}, []

    def copied(value):
        return tree_map(torch.clone, value)

    for end, found in calls.items():
        module = model.get_submodule(end.removesuffix(':input'))
        if end.endswith(':input'):
            hooks.append(module.register_forward_pre_hook(
                lambda _, args, found=found: found.append(copied(args[0]))))
        else:
            hooks.append(module.register_forward_hook(
                lambda *call, found=found: found.append(copied(call[-1]))))
    with torch.no_grad():
        if hasattr(model, 'bbox_head'):
            model.bbox_head(model.extract_feat(inputs))
        else:
            model(inputs)
    for hook in hooks:
        hook.remove()
    values = {end: found[0] if len(found) == 1 else found for end, found in calls.items()}
    return {name: leaf for tap in taps for name, leaf in _picked(tap, values).items()}


def _picked(tap, values):
    """As the names of the paths used here say: no step, a number, or `*` in the first place."""
    end = endpoint_of(tap)
    steps = tap[len(end):].split(':')[1:]
    if steps[:1] == ['*']:
        numbers = range(len(values[end]))
        return {name: leaf for i in numbers
                for name, leaf in _picked(':'.join([end, str(i), *steps[1:]]), values).items()}
    value = values[end]
    for step in steps:
        value = value[int(step)]
    [leaf] = tree_leaves(value)
    return {tap: leaf}


def _assert_equal(found, expected, rtol=1e-5):
    assert list(found) == list(expected)
    for tap, theirs in expected.items():
        ours = found[tap]
        assert not ours.requires_grad and ours.shape == theirs.shape
        assert (ours - theirs).norm() <= rtol * theirs.norm(), tap


RESNET = centernet()
NETWORKS = dict(
    resnet=(RESNET, ['backbone.bn1', 'backbone.layer?', 'neck', 'bbox_head:*:-1',
                     'bbox_head:input:0']),
    inner=(RESNET, ['backbone.layer1.0.conv1', 'backbone.layer2.0.bn2:input',
                    'backbone.layer3.0.bn1', 'backbone.layer3.0.relu:*',
                    'backbone.layer4.0.downsample']),
    hourglass=(centernet(stacks=2), ['backbone.stem', 'backbone.hourglass_modules.?',
                                     'backbone.out_convs.0.bn', 'bbox_head:*:0', 'bbox_head:0:-1',
                                     'bbox_head:input:*']),
    mobilenetv2=(_with_backbone(1280, type='MobileNetV2', out_indices=(7, ), widen_factor=0.25),
                 ['backbone.layer?', 'backbone.conv2.bn', 'bbox_head:*:0']),
    efficientnet=(_with_backbone(1280, type='EfficientNet', arch='b0', out_indices=(6, ),
                                 norm_cfg=dict(type='BN', eps=1e-3)),
                  ['backbone.layers.?', 'neck', 'bbox_head:*:0']),
    **{name: (_classifier(name), ['backbone.stage?', 'backbone.stage?.preact', 'head.fc'])
       for name in ('resnet8', 'wrn_16_1', 'vgg8', 'mobilenetv2_half', 'shufflenetv1',
                    'shufflenetv2_0_5x')})


@pytest.mark.parametrize('network', NETWORKS)
def test_taps_are_those_of_the_plain_network(network):
    config, taps = NETWORKS[network]
    model = _trained(build(config))
    inputs = torch.randn(2, 3, *((64, 64) if hasattr(model, 'bbox_head') else (32, 32)))
    expected = _plain(copy.deepcopy(model), taps, inputs)
    teacher = Teacher('t', model)
    teacher.tap(taps, torch.randn(1, *inputs.shape[1:]))
    for _ in range(2):
        _assert_equal(teacher(inputs), expected)
    first = next(m for m in teacher.model.modules() if isinstance(m, nn.Conv2d))
    assert first.weight.is_contiguous(memory_format=torch.channels_last)
    assert not any('forward' in vars(module) for module in model.modules())


class Chain(nn.Module):
    """conv, norm, in-place ReLU, twice; `shared` runs twice."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1))
        self.bn1, self.relu = nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.rest = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.shared = nn.Conv2d(4, 4, 1)
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, inputs, mode='tensor'):
        x = self.relu(self.bn1(self.first(inputs)))
        x = self.rest(self.conv2(x))
        return self.last(self.shared(self.shared(x).relu()))


@pytest.fixture
def chain():
    torch.manual_seed(0)
    return _trained(Chain())


def _tapped(model, taps, **options):
    torch.manual_seed(1)
    inputs, first, plain = torch.randn(3, 3, 8, 8), torch.randn(1, 3, 8, 8), copy.deepcopy(model)
    state = torch.get_rng_state()
    teacher = Teacher('t', model, **options)
    teacher.tap(taps, first)
    assert torch.equal(torch.get_rng_state(), state)
    return teacher, inputs, _plain(plain, taps, inputs)


def test_a_tap_before_an_in_place_relu_is_not_overwritten(chain):
    teacher, inputs, expected = _tapped(chain, ['bn1', 'rest.0', 'last'])
    state = torch.get_rng_state()
    found = teacher(inputs)
    assert torch.equal(torch.get_rng_state(), state)
    assert found['bn1'].min() < 0 and found['rest.0'].min() < 0
    _assert_equal(found, expected)


def test_layers_that_read_memory_as_it_lies_keep_its_layout():
    class Compiled(nn.Module):
        def forward(self, x):
            return x

    assert runs_channels_last(nn.Sequential(ModulatedDeformConv2dPack(3, 4, 3), Compiled()))
    Compiled.forward.__module__ = 'mmcv.ops.carafe'
    assert not runs_channels_last(nn.Sequential(nn.Conv2d(3, 4, 3), Compiled()))


@pytest.fixture(params=['aot_eager', pytest.param('inductor', marks=pytest.mark.matrix)])
def compiler(request, monkeypatch):
    """torch.compile, in the ordinary run with a back end that needs no C++ compiler."""
    monkeypatch.setattr(torch, 'compile', functools.partial(torch.compile, backend=request.param))
    yield
    torch.compiler.reset()


def test_a_compiled_teacher_gives_the_same(chain, compiler, monkeypatch):
    lines = []
    monkeypatch.setattr(inference, 'print_log', lambda line, logger: lines.append(line))
    teacher, inputs, expected = _tapped(
        chain, ['first', 'bn1', 'rest.0', 'shared:*', 'shared:input:1'], compiled=True)
    state = torch.get_rng_state()
    for _ in range(2):
        _assert_equal(teacher(inputs), expected)
    assert torch.equal(torch.get_rng_state(), state)
    [line] = lines
    assert line.startswith("Teacher 't' compiled in ") and line.endswith(' s')
    _assert_equal(teacher(inputs[:2]), {tap: value[:2] for tap, value in expected.items()})


def test_a_network_that_does_not_compile_is_refused_in_one_line(chain, monkeypatch):
    def broken(graph, inputs):
        raise OSError('no compiler\nmore of it')

    monkeypatch.setattr(torch, 'compile', functools.partial(torch.compile, backend=broken))
    teacher, inputs, _ = _tapped(chain, ['last'], compiled=True)
    with pytest.raises(UserError, match=r"teacher 't' does not compile \(.*no compiler.*: take "
                                        '`compile` out of its entry') as caught:
        teacher(inputs)
    assert '\n' not in str(caught.value)
    torch.compiler.reset()


def test_bf16_runs_under_autocast_and_gives_float32(chain):
    teacher, inputs, expected = _tapped(chain, ['rest', 'last'], precision='bf16')
    dtypes = []
    teacher.model.conv2.register_forward_hook(lambda *call: dtypes.append(call[-1].dtype))
    found = teacher(inputs)
    assert dtypes == [torch.bfloat16]
    assert {value.dtype for value in found.values()} == {torch.float32}
    _assert_equal(found, expected, rtol=0.02)
    assert not torch.equal(found['last'], expected['last'])


def test_without_a_precision_a_teacher_runs_as_the_student_does(chain):
    teacher, inputs, _ = _tapped(chain, ['last'])
    with torch.autocast('cpu', torch.bfloat16):
        assert teacher(inputs)['last'].dtype == torch.bfloat16
    assert teacher(inputs)['last'].dtype == torch.float32


def test_teachers_share_what_they_make_of_the_inputs(chain):
    first, again, other = (Renormalisation((2.0, 2.0, 2.0), (0.0, 1.0, shift), True)
                           for shift in (2.0, 2.0, 3.0))
    teachers = [Teacher('t', copy.deepcopy(chain), renormalise=r)
                for r in (first, again, other, None, None)]
    inputs = torch.randn(2, 3, 8, 8)
    seen = []
    for teacher in teachers:
        teacher.tap(['last'], inputs[:1])
        teacher.model.first.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    shared = {}
    found = [teacher(inputs, None, shared)['last'] for teacher in teachers]
    assert seen[0] is seen[1] and seen[3] is seen[4] and len(shared) == 3
    shift = torch.tensor([0.0, 1.0, 2.0]).view(3, 1, 1)
    torch.testing.assert_close(seen[0], 2 * inputs[:, [2, 1, 0]] + shift)
    assert torch.equal(seen[3], inputs)
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in seen)
    for teacher, values in zip(teachers, found, strict=True):
        assert torch.equal(teacher(inputs)['last'], values)


def test_a_student_that_teaches_stays_as_it_is(chain):
    partner = PartnerTeacher('p', chain.train())
    mean = MeanTeacher('m', chain, 0.9)
    inputs = torch.randn(2, 3, 8, 8)
    for teacher in (partner, mean):
        teacher.tap(['first'], inputs)
    assert partner.model is chain and mean.model is not chain
    assert not chain.conv2.weight.is_contiguous(memory_format=torch.channels_last)
    assert all(p.requires_grad for p in chain.parameters())
    assert chain.training and chain.rest[0].num_batches_tracked == 0
    mean(inputs)
    assert chain.rest[0].num_batches_tracked == 0
    for value, expected in ((4.0, 4.0), (8.0, 6.0)):  # it moves, whatever its layout of memory
        nn.init.constant_(chain.conv2.weight, value)
        mean.update(chain)
        assert (mean.model.conv2.weight == expected).all()


def test_a_teacher_finds_what_wildcards_stand_for():
    teacher = Teacher('t', build(_classifier('resnet8')))
    images = torch.zeros(1, 3, 32, 32)
    found = teacher.tap(['head.fc', 'backbone.stage?'], images)
    assert {tap: list(leaves) for tap, leaves in found.items()} == {
        'head.fc': ['head.fc'],
        'backbone.stage?': ['backbone.stage1', 'backbone.stage2', 'backbone.stage3']}
    assert list(teacher(images)) == list(flat(found))


@pytest.mark.parametrize('options, message', [
    (dict(precision='bf61'), r"precision='bf61': give .*or .auto.,.* Did you mean 'bf16'\?"),
    (dict(precision=16), r"teacher 'big' has precision=16: give"),
    (dict(precision=['bf16']), r"teacher 'big' has precision=\['bf16'\]: give"),
    (dict(compiled='yes'), r"teacher 'big' has compile='yes': give True or False"),
])
def test_bad_options_are_refused(tmp_path, options, message):
    entry = save_teacher(tmp_path, 'big', centernet())
    with pytest.raises(UserError, match=message):
        build_teacher('big', **entry, student_preprocessor=build(centernet()).data_preprocessor,
                      device=torch.device('cpu'), **options)


def test_options_in_an_entry(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, 'compile', functools.partial(torch.compile, backend='eager'))
    entry = save_teacher(tmp_path, 'big', centernet())
    losses = {}
    # A mean square, which is smooth: a teacher that was never trained has scores near 0.1, where
    # rounding to bfloat16 decides which peaks the soft focal loss counts.
    terms = centernet_terms('heatmap', loss=dict(type='HeatmapLoss'), weight=1.0, joint='each')
    for name, options in dict(plain={}, fast=dict(compile=True, precision='bf16')).items():
        hooks = distillation(dict(big=entry | options), terms)
        run = runner(train_config(tmp_path / name, centernet(), hooks, iters=2))
        run.train()
        losses[name] = run.message_hub.get_scalar('train/loss_distill_heatmap').data[0]
    assert losses['plain'][-1] == pytest.approx(losses['fast'][-1], rel=0.02)
    assert losses['plain'][-1] != losses['fast'][-1]
    torch.compiler.reset()


FILES = dict(config='a.py', checkpoint='a.pth')


@pytest.mark.parametrize('gpu, bfloat16, expected', [
    (True, True, 'fp16'), (False, True, 'bf16'), (False, False, None)])
def test_the_precision_that_the_machine_is_fastest_with(monkeypatch, gpu, bfloat16, expected):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    monkeypatch.setattr(inference, 'computes_in_bfloat16', lambda: bfloat16)
    found = checked_entries(dict(a=FILES | dict(precision='auto'), b=FILES))
    assert found == dict(a=FILES | dict(precision=expected), b=FILES)


@pytest.mark.parametrize('entry', [FILES | dict(compil=True), FILES | dict(precison='bf16'),
                                   dict(ema=0.9, compile=True)])
def test_keys_that_an_entry_does_not_have(entry):
    """Among them what the student's own teachers do not take."""
    with pytest.raises(UserError, match=r"teacher 'big' has the keys \[.*compile, precision"):
        checked_entries(dict(big=entry))
