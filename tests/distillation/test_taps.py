"""Recording what layers give, as they gave it."""

import copy

import pytest
import torch
from helpers import build, centernet
from torch import nn

from mmkd.distillation.taps import TapRecorder, forward_for_taps, list_taps
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


def test_values_are_those_before_in_place_operations(recorder_and_model):
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


def test_gradients_flow_through_a_tap(recorder_and_model):
    recorder, model = recorder_and_model
    recorder.start()
    model(torch.randn(2, 3, 4, 4))
    recorder.take()['bn'].square().sum().backward()
    assert model.bn.weight.grad.abs().sum() > 0 and model.conv.weight.grad is None


def test_nothing_is_kept_between_steps(recorder_and_model):
    recorder, model = recorder_and_model
    recorder.start()
    model(torch.randn(2, 3, 4, 4))
    recorder.take()
    model(torch.randn(2, 3, 4, 4))  # not started: must not be recorded
    assert recorder._values == {}
    copy.deepcopy(model)


def test_a_change_that_the_dry_run_did_not_show_is_an_error():
    class OnlyInTraining(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, x):
            x = self.layer(x * 1)
            return x.relu_() if self.training else x

    model = OnlyInTraining().eval()
    recorder = TapRecorder(model, ['layer'])
    recorder.dry_run(lambda: model(torch.randn(4)))
    model.train()
    recorder.start()
    model(torch.randn(4))
    with pytest.raises(RuntimeError, match=r"\['layer'\] were changed in place"):
        recorder.take()


def test_removed_hooks_record_nothing(recorder_and_model):
    recorder, model = recorder_and_model
    recorder.remove()
    recorder.start()
    model(torch.randn(2, 3, 4, 4))
    assert recorder.take() == {}


def test_a_misspelt_tap_names_the_closest():
    with pytest.raises(UserError, match=r"'con' does not exist in InPlace\. Did you mean 'conv'\?"):
        TapRecorder(InPlace(), ['con'])


def test_a_tap_that_is_never_called_is_an_error():
    model = InPlace()
    model.unused = nn.Identity()
    recorder = TapRecorder(model, ['unused'])
    with pytest.raises(UserError, match="'unused' names a module that a forward pass never calls"):
        recorder.dry_run(lambda: model(torch.randn(2, 3, 4, 4)))


def test_listed_taps_have_their_strides_and_can_all_be_tapped():
    model = build(centernet())
    rows = {row.name: row for row in list_taps(model, torch.rand(1, 3, 64, 64))}
    assert rows['backbone.layer3'].strides == [16]
    assert rows['backbone.layer3'].shapes == [(1, 16, 4, 4)]
    assert rows['bbox_head'].shapes == [(1, 3, 16, 16), (1, 2, 16, 16), (1, 2, 16, 16)]
    assert rows['bbox_head'].strides == [4, 4, 4]
    model.eval()
    taps = TapRecorder(model, rows).dry_run(
        lambda: forward_for_taps(model, torch.rand(1, 3, 64, 64)))
    assert set(taps) == set(rows)
    assert model.training is False
