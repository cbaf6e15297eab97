"""Which tensors taps name, and recording them as they were given."""

import copy
from collections import OrderedDict
from typing import NamedTuple

import pytest
import torch
from helpers import build, centernet
from torch import nn

from mmkd.distillation import taps as taps_module
from mmkd.distillation.tap_paths import endpoints
from mmkd.distillation.taps import Leaf, TapRecorder, flat, forward_for_taps, list_taps
from mmkd.errors import UserError


class InPlace(nn.Module):
    """`bn` is changed by a ReLU, `conv` by an addition, `last` by nothing."""

    def __init__(self):
        super().__init__()
        self.bn, self.relu = nn.BatchNorm2d(3), nn.ReLU(inplace=True)
        self.conv, self.last = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        y = self.relu(self.bn(x))
        z = self.conv(y)
        z += 100
        return self.last(z)


@pytest.fixture
def recorder_and_model():
    torch.manual_seed(0)
    model = InPlace()
    recorder = TapRecorder(model, ['bn', 'conv', 'last', 'last:input'])
    recorder.dry_run(lambda: model(torch.randn(2, 3, 4, 4)))
    return recorder, model


def test_values_are_those_before_in_place_operations_and_pass_gradients_on(recorder_and_model):
    recorder, model = recorder_and_model
    x = torch.randn(2, 3, 4, 4)
    recorder.start()
    out = model(x)
    taps = recorder.take()
    bn = nn.functional.batch_norm(x, None, None, model.bn.weight, model.bn.bias, training=True)
    assert bn.min() < 0
    torch.testing.assert_close(taps['bn'], bn)
    torch.testing.assert_close(taps['conv'], model.conv(bn.relu()))
    torch.testing.assert_close(taps['last:input'], model.conv(bn.relu()) + 100)
    assert taps['last'] is out, 'what nothing changes is not copied'
    taps['bn'].square().sum().backward()
    assert model.bn.weight.grad.abs().sum() > 0 and model.conv.weight.grad is None


def test_the_networks_own_loss_has_its_gradient_at_a_tap_that_is_changed(recorder_and_model):
    recorder, model = recorder_and_model
    recorder.start()
    out = model(torch.randn(2, 3, 4, 4))
    taps = recorder.take()
    found = torch.autograd.grad(out.sum(), [taps['bn'], taps['conv']])
    # d sum(last(conv + 100)) / d conv is the sum of last's weights by input channel.
    by_channel = model.last.weight.sum(0).flatten()
    torch.testing.assert_close(found[1], by_channel[None, :, None, None].expand(2, 3, 4, 4))
    behind = by_channel @ model.conv.weight[:, :, 0, 0]
    torch.testing.assert_close(found[0], (taps['bn'] > 0) * behind[None, :, None, None])


class Named(NamedTuple):
    features: torch.Tensor
    size: int


class Gives(nn.Module):
    def forward(self, x):
        return Named(x * 1, 7), OrderedDict(x=x * 1)


class Changes(nn.Module):
    def __init__(self):
        super().__init__()
        self.gives = Gives()

    def forward(self, x):
        named, mapping = self.gives(x)
        return named.features.add_(named.size), mapping['x'].add_(1), type(mapping)


def test_a_network_goes_on_with_what_its_module_gave_of_the_same_kind():
    model = Changes()
    recorder = TapRecorder(model, ['gives:*'])
    recorder.dry_run(lambda: model(torch.zeros(2)))
    recorder.start()
    seven, one, kind = model(torch.zeros(2))
    assert [leaf.tolist() for leaf in recorder.take().values()] == [[0, 0], [0, 0]]
    assert (seven.tolist(), one.tolist(), kind) == ([7, 7], [1, 1], OrderedDict)


def _traces(model):
    """What a recorder puts on modules."""
    return [(name, key) for name, module in model.named_modules() for key in vars(module)
            if key in ('forward', 'get_targets')]


def test_nothing_is_kept_between_steps(recorder_and_model):
    recorder, model = recorder_and_model
    names = set(InPlace().state_dict())
    recorder.start()
    assert {name for name, _ in _traces(model)} == {'bn', 'conv', 'last'}
    model(torch.randn(2, 3, 4, 4))
    recorder.take()
    model(torch.randn(2, 3, 4, 4))  # not started: must not be recorded
    assert recorder._values == {}
    assert not _traces(model) and not _traces(copy.deepcopy(model))
    assert set(model.state_dict()) == names


def test_a_pass_that_fails_leaves_nothing_in_the_end(recorder_and_model):
    recorder, model = recorder_and_model
    for record in (recorder.record, recorder.dry_run):
        with pytest.raises(RuntimeError, match='running_mean'):
            record(lambda: model(torch.randn(2, 5, 4, 4)))
        assert not _traces(model)
    recorder.start()
    with pytest.raises(RuntimeError, match='running_mean'):
        model(torch.randn(2, 5, 4, 4))
    values = recorder.record(lambda: model(torch.randn(3, 3, 4, 4)))
    assert {len(value) for value in values.values()} == {3} and not _traces(model)


def test_a_change_that_the_dry_run_did_not_show_is_seen_once(monkeypatch):
    class OnlyInTraining(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, x):
            x = self.layer(x * 1)
            return x.relu_() if self.training else x

    lines = []
    monkeypatch.setattr(taps_module, 'print_log', lambda line, *_, level: lines.append(line))
    model, x = OnlyInTraining().eval(), torch.tensor([-1.0, 2.0])
    recorder = TapRecorder(model, ['layer'])
    recorder.dry_run(lambda: model(x))
    assert recorder.record(lambda: model(x))['layer'].tolist() == [-1, 2] and not lines
    model.train()
    assert recorder.record(lambda: model(x))['layer'].tolist() == [0, 2]
    [line] = lines
    assert line.startswith('What layer gave was changed in place')
    for _ in range(2):
        assert recorder.record(lambda: model(x))['layer'].tolist() == [-1, 2]
    assert len(lines) == 1


def test_a_tap_that_is_never_called_is_an_error():
    model = InPlace()
    model.unused = nn.Identity()
    recorder = TapRecorder(model, ['unused'])
    with pytest.raises(UserError, match="'unused' names a module that a forward pass never calls"):
        recorder.dry_run(lambda: model(torch.randn(2, 3, 4, 4)))


class Neck(nn.Module):
    """Gives level l of a pyramid, ``(2, 2, 16 / 2^l, 16 / 2^l)``, full of the number l."""

    levels = 5

    def forward(self, x):
        return tuple(torch.full((2, 2, 16 >> level, 16 >> level), float(level))
                     for level in range(self.levels))


class Head(nn.Module):
    """One convolution for all levels: 10 l; and a list of l + 100."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 1, bias=False)
        nn.init.constant_(self.conv.weight, 5.0)

    def forward(self, levels):
        return [self.conv(level) for level in levels], [level + 100 for level in levels]

    def get_targets(self, levels, scale):
        return dict(labels=[scale * level for level in levels], weights=levels[0] + 7, number=3)


class Detector(nn.Module):
    """As MMDetection's, it calls a method of its head and not the head."""

    def __init__(self):
        super().__init__()
        self.neck, self.bbox_head = Neck(), Head()

    def forward(self, x):
        levels = self.neck(x)
        self.bbox_head.get_targets(levels, scale=1000)
        return self.bbox_head.forward(levels)


X = torch.zeros(2, 3, 16, 16)


@pytest.mark.parametrize(('tap', 'expected'), [
    ('neck:*', {f'neck:{level}': level for level in range(5)}),
    ('neck:0-2', {'neck:0': 0, 'neck:1': 1, 'neck:2': 2}),
    ('neck:3-3', {'neck:3': 3}),
    ('neck:-1', {'neck:-1': 4}),
    ('bbox_head:0:*', {f'bbox_head:0:{level}': 10 * level for level in range(5)}),
    ('bbox_head:*:1', {'bbox_head:0:1': 10, 'bbox_head:1:1': 101}),
    ('bbox_head:1:-1', {'bbox_head:1:-1': 104}),
    ('bbox_head:input:2', {'bbox_head:input:2': 2}),
    ('bbox_head:inputs:0:2', {'bbox_head:inputs:0:2': 2}),
    ('bbox_head.conv:*', {f'bbox_head.conv:{level}': 10 * level for level in range(5)}),
    ('bbox_head.conv:input:3', {'bbox_head.conv:input:3': 3}),
    ('*.conv:4', {'bbox_head.conv:4': 40}),
    ('neck:1:0', {'neck:1:0': 1}),
    ('bbox_head.get_targets():labels:1-2', {'bbox_head.get_targets():labels:1': 1000,
                                            'bbox_head.get_targets():labels:2': 2000}),
    ('bbox_head.get_targets():weights', {'bbox_head.get_targets():weights': 7}),
    ('bbox_head.get_targets():input:4', {'bbox_head.get_targets():input:4': 4}),
])
def test_a_path_names_exactly_these_tensors(tap, expected):
    model = Detector()
    recorder = TapRecorder(model, [tap])
    found = recorder.dry_run(lambda: model(X))
    assert list(found) == [tap]
    for leaves in (found[tap], recorder.record(lambda: model(X))):
        assert list(leaves) == list(expected)
        for name, number in expected.items():
            assert (leaves[name] == number).all(), name
    assert not _traces(model)
    for name, number in expected.items():  # the name of a leaf is a tap as well
        again = TapRecorder(model, [name]).dry_run(lambda: model(X))
        assert list(again[name]) == [name] and (again[name][name] == number).all()


def test_a_step_into_a_tensor_picks_along_its_first_axis():
    model = Detector()
    [leaf] = flat(TapRecorder(model, ['neck:1:0']).dry_run(lambda: model(X))).values()
    assert leaf.shape == (2, 8, 8)


@pytest.mark.parametrize(('tap', 'message'), [
    ('neck', r"tap 'neck' stands for 5 tensors: neck:0 \(2, 2, 16, 16\), neck:1 \(2, 2, 8, 8\), "
             r'neck:2 \(2, 2, 4, 4\), neck:3 \(2, 2, 2, 2\), neck:4 \(2, 2, 1, 1\); name one of '
             r"them, or .*'neck:\*'$"),
    ('bbox_head', r'stands for 10 tensors: bbox_head:0:0 .*bbox_head:1:2 \(2, 2, 4, 4\) and 2 '
                  r"more; .*'bbox_head:0:\*'"),
    ('bbox_head.conv', r'5 tensors: bbox_head\.conv:0 \(2, 1, 16, 16\), '),
    ('bbox_head:*', r'stands for 5 tensors: bbox_head:0:0 '),
    ('neck:5', r"no step ':5' at 'neck', which is a tuple of 5: it has 5 tensors: neck:0 \(2,"),
    ('neck:3-7', r"no step ':3-7' at 'neck', which is a tuple of 5"),
    ('neck:first', r"no step ':first' at 'neck', which is a tuple of 5: it has 5 tensors: neck:0"),
    ('neck:0:*', r"no step ':\*' at 'neck:0', which is a tensor of shape \(2, 2, 16, 16\)$"),
    ('neck:0:2', r"no step ':2' at 'neck:0', which is a tensor"),
    ('bbox_head.get_targets():label', r"no step ':label' .* is a dict of 3: it has 6 tensors: .*"
                                      r'bbox_head\.get_targets\(\):labels:0 \(2'),
    ('bbox_head.get_targets():number', r"stands for no tensor: at '.*:number' is a int$"),
])
def test_a_path_that_does_not_end_at_one_tensor_names_what_is_there(tap, message):
    model = Detector()
    recorder = TapRecorder(model, [tap])
    with pytest.raises(UserError, match=message) as caught:
        recorder.dry_run(lambda: model(X))
    assert '\n' not in str(caught.value) and not _traces(model)


@pytest.mark.parametrize(('tap', 'message'), [
    ('nek:*', r"tap 'nek' does not exist in Detector\. Did you mean 'neck'\?"),
    ('bbox_head.get_target():0', r"'bbox_head\.get_target\(\)' does not exist: Head has no method "
                                 r"get_target\. Did you mean 'get_targets'\?"),
    ('neck?:*', r"tap 'neck\?:\*' matches no submodule of Detector"),
    ('', r"tap '' does not exist"),
])
def test_a_path_that_begins_nowhere(tap, message):
    with pytest.raises(UserError, match=message):
        TapRecorder(Detector(), [tap])


def test_wildcards_stand_for_modules_in_order():
    net = nn.ModuleDict({f'stage{i}': nn.Identity() for i in (1, 2, 3)})
    assert endpoints(net, 'stage?') == ['stage1', 'stage2', 'stage3']
    assert endpoints(net, 'stage[13]:input:0') == ['stage1:input:0', 'stage3:input:0']
    assert endpoints(net, 'stage2:*') == ['stage2:*']


@pytest.mark.parametrize(('tap', 'levels'), [('bbox_head.conv:*', 3), ('neck:*', 4)])
def test_another_number_of_tensors_than_in_the_dry_run(tap, levels):
    model = Detector()
    recorder = TapRecorder(model, [tap])
    recorder.dry_run(lambda: model(X))
    model.neck.levels = levels
    with pytest.raises(UserError, match=f'stands for {levels} tensors, and in the dry run it stood '
                                        'for 5'):
        recorder.record(lambda: model(X))
    model.neck.levels = 5
    assert len(recorder.record(lambda: model(X))) == 5


@pytest.mark.parametrize('call', [lambda head, x: head.forward(x), lambda head, x: head(x)])
def test_a_head_is_recorded_once_however_it_is_called(call):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.bbox_head = Head()

        def forward(self, x):
            return call(self.bbox_head, [x, x + 1])

    model = Two()
    x = torch.zeros(1, 2, 3, 3)
    recorder = TapRecorder(model, ['bbox_head:1:*', 'bbox_head:input:0'])
    recorder.dry_run(lambda: model(x))
    recorder.start()
    assert 'forward' in vars(model.bbox_head)
    out = model(x)
    taps = recorder.take()
    assert taps['bbox_head:1:0'] is out[1][0] and taps['bbox_head:1:1'] is out[1][1]
    assert taps['bbox_head:input:0'] is x and len(taps) == 3
    assert 'forward' not in vars(model.bbox_head)
    assert set(copy.deepcopy(model).state_dict()) == {'bbox_head.conv.weight'}


def test_two_recorders_on_one_model_do_not_disturb_each_other():
    model = Detector()
    first, second = (TapRecorder(model, [tap]) for tap in ('neck:*', 'neck:0-1'))
    first.dry_run(lambda: model(X))
    second.dry_run(lambda: model(X))
    first.start()
    assert len(second.record(lambda: model(X))) == 2
    model(X)
    assert len(first.take()) == 5 and not _traces(model)


def test_listed_taps_have_their_strides_and_can_all_be_tapped():
    model = build(centernet())
    rows = {row.name: row for row in list_taps(model, torch.rand(1, 3, 64, 64))}
    assert rows['backbone.layer3'].leaves == [Leaf('backbone.layer3', (1, 16, 4, 4), 16)]
    assert rows['backbone.layer3'].kind == 'ResLayer' and rows['backbone.layer3'].calls == 1
    assert rows['bbox_head'].leaves == [
        Leaf('bbox_head:0:0', (1, 3, 16, 16), 4), Leaf('bbox_head:1:0', (1, 2, 16, 16), 4),
        Leaf('bbox_head:2:0', (1, 2, 16, 16), 4)]
    relu = rows['backbone.layer3.0.relu']
    assert relu.calls == 2
    assert [leaf.name for leaf in relu.leaves] == [f'{relu.name}:0', f'{relu.name}:1']
    assert model.training is True and not _traces(model)
    model.eval()
    leaves = {leaf.name: leaf for row in rows.values() for leaf in row.leaves}
    found = flat(TapRecorder(model, leaves).dry_run(
        lambda: forward_for_taps(model, torch.rand(1, 3, 64, 64))))
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == {
        name: leaf.shape for name, leaf in leaves.items()}
    assert model.training is False


def test_all_arguments_of_a_module_can_be_tapped():
    class Second(nn.Module):
        def forward(self, maps, boxes, scale=None):
            return maps * boxes

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = Second()

        def forward(self, x):
            return self.layer(x, boxes=2 * x, scale=3)

    model, x = Both(), torch.ones(1, 2)
    recorder = TapRecorder(model, ['layer:inputs:1', 'layer:input', 'layer:inputs:0'])
    recorder.dry_run(lambda: model(x))
    found = recorder.record(lambda: model(x))
    assert {name: value.tolist() for name, value in found.items()} == {
        'layer:inputs:1': [[2, 2]], 'layer:input': [[1, 1]], 'layer:inputs:0': [[1, 1]]}
