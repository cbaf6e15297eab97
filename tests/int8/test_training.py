"""A training for int8: what it changes, resumes and saves, and the file made of it."""

import contextlib
import copy

import pytest
import torch
from helpers import build, centernet, runner, train_config
from mmengine.config import Config
from mmengine.hooks import Hook
from torch import nn

from mmkd.distillation.student_teachers import FloatTeacher
from mmkd.engine.amp import keep_strided_depthwise_in_float32
from mmkd.engine.int8_aware import settle_int8_aware, use_int8_aware
from mmkd.errors import UserError
from mmkd.int8 import Rounded
from mmkd.int8.hook import places_of
from mmkd.int8.student import RANGES, Ranges


class Small(nn.Module):
    """A convolution, its norm and ReLU, a residual, a last convolution."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.relu(self.norm(self.first(x)))
        return x + self.second(x)


def test_places():
    """The image and what ReLU gives go into layers; the second's output is a feature, too."""
    places = places_of(Small(), torch.zeros(2, 3, 8, 8))
    assert places.calls == dict(first=1, second=1)
    assert places.norms == dict(first='norm')
    named = places.named()
    assert named['first:0:output'] == named['second:0:input']
    assert len(set(named.values())) == places.count == 3
    assert sorted(place.function for place in places.made) == ['conv2d', 'relu']


class Strided(Small):
    """With a convolution that mixed precision leaves in float32."""

    def __init__(self):
        super().__init__()
        self.second = nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4)
        self.third = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        x = self.relu(self.norm(self.first(x)))
        return self.third(self.second(x))


def test_conversions_that_change_nothing_are_no_places():
    plain, converted = Strided(), Strided()
    keep_strided_depthwise_in_float32(converted)
    assert type(plain.second) is nn.Conv2d is not type(converted.second)
    images = torch.randn(2, 3, 8, 8)
    places, same = (places_of(model, images) for model in (plain, converted))
    assert places == same
    converted.load_state_dict(plain.state_dict())
    found = []
    for model in (plain.eval(), converted.eval()):
        ranges = Ranges(places)
        ranges.low.fill_(-1), ranges.high.fill_(1)
        with Rounded(model, places, ranges):
            found.append(model(images))
    assert torch.equal(*found)


def test_ranges_are_averages():
    ranges = Ranges(places_of(Small(), torch.zeros(2, 3, 8, 8)))
    for least, most in ((-1.0, 2.0), (-3.0, 4.0), (1.0, 6.0)):
        ranges.observe(0, torch.tensor([least, most]))
    # 0 belongs to a range: (-1 - 3 + 0) / 3 and (2 + 4 + 6) / 3.
    assert ranges.low[0].item() == pytest.approx(-4 / 3)
    assert ranges.high[0].item() == pytest.approx(4)


def test_every_reader_reads_the_rounded_feature():
    model = Small().eval()
    places = places_of(model, torch.zeros(2, 3, 8, 8))
    ranges = Ranges(places)
    ranges.low.fill_(-2.55), ranges.high.fill_(2.55)
    ranges.low[places.named()['first:0:output']] = 0
    rounded = Rounded(model, places, ranges)
    with rounded:
        found = model(torch.randn(1, 3, 8, 8))
    # A multiple of 2.55 / 255 plus one of 5.1 / 255.
    torch.testing.assert_close(found * 100, (found * 100).round(), atol=1e-3, rtol=0)


class StopsAfter(Hook):
    """Ctrl-C in the iteration after so many."""

    def __init__(self, iters):
        self.iters = iters

    def after_train_iter(self, runner, *args, **kwargs):
        if runner.iter == self.iters:
            raise KeyboardInterrupt


def trained(folder, iters, resume=None):
    config = train_config(folder, centernet(deconvs=1), iters=4, hooks=[
        dict(type='Int8AwareHook', begin=0.5)])
    config.model.backbone.norm_eval = False
    config.load_from, config.resume = resume, resume is not None
    run = runner(config)
    run.register_hook(StopsAfter(iters))
    with contextlib.suppress(KeyboardInterrupt):
        run.train()
    return run


def state(folder, iters):
    return torch.load(f'{folder}/iter_{iters}.pth', weights_only=False)


def test_a_resumed_run_is_the_same(tmp_path):
    whole = tmp_path / 'whole'
    run = trained(whole, 4)
    trained(tmp_path / 'cut', 3)
    trained(tmp_path / 'resumed', 4, resume=str(tmp_path / 'cut/iter_3.pth'))
    assert not (tmp_path / 'cut/iter_4.pth').exists()
    expected, found = state(whole, 4), state(tmp_path / 'resumed', 4)
    assert expected['meta'][RANGES] == found['meta'][RANGES]
    for name, value in expected['state_dict'].items():
        assert torch.equal(value, found['state_dict'][name]), name
    # The first half is a plain training, and its checkpoints are plain ones.
    assert RANGES not in state(whole, 2)['meta']
    assert {batches for *_, batches in expected['meta'][RANGES].values()} == {2}
    name = 'backbone.bn1.running_mean'
    assert torch.equal(state(whole, 2)['state_dict'][name], expected['state_dict'][name])
    assert expected['state_dict'].keys() == build(centernet(deconvs=1)).state_dict().keys()
    assert not run.model._forward_hooks


def test_what_the_config_leaves_open():
    def settled(**entries):
        cfg = Config(dict(model=centernet(), **entries))
        settle_int8_aware(cfg)
        return cfg.get('int8_aware')

    assert settled(int8_aware=True) == dict(begin=0.8, float_self=False)
    assert settled(int8_aware=True, load_from='a.pth') == dict(begin=0.0, float_self=True)
    assert settled(int8_aware=dict(begin=0.5), load_from='a.pth')['begin'] == 0.5
    assert settled(int8_aware=False) is None
    for wrong, message in ((dict(start=0.5), "no 'start'"), (dict(begin=1), 'begin is 1'),
                           (3, 'int8_aware is 3')):
        with pytest.raises(UserError, match=message):
            settled(int8_aware=wrong)
    with pytest.raises(UserError, match='compile'):
        settled(int8_aware=True, compile=True)


def test_the_float_self_teaches_beside_the_others():
    cfg = Config(dict(
        model=centernet(), int8_aware=dict(begin=0, float_self=True), distill_weights=[3],
        teachers=dict(big=dict(config='a', checkpoint='b')),
        terms=dict(heatmap=dict(type='CenterNetTerm', map='heatmap',
                                loss=dict(type='SoftFocalLoss')))))
    use_int8_aware(cfg)
    assert list(cfg.teachers) == ['big', 'float_self']
    assert cfg.terms.heatmap.teachers == ['big']
    assert cfg.terms.float_self_heatmap.teachers == ['float_self']
    assert cfg.distill_weights == dict(heatmap=3)
    assert [hook.type for hook in cfg.custom_hooks] == ['Int8AwareHook', 'DistillationHook']


def test_the_float_teacher_stays_when_the_student_goes_on():
    student = nn.Linear(2, 2)
    teacher = FloatTeacher('float_self', student)
    student.weight.data.fill_(1)
    teacher.update(student)
    teacher.freeze()
    kept = copy.deepcopy(student.weight)
    student.weight.data.fill_(2)
    teacher.update(student)
    teacher.begin(student)
    assert torch.equal(teacher.model.weight, kept)
