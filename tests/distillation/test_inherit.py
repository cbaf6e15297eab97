"""Weights of a teacher that the student begins with."""

import pytest
import torch
from helpers import build, centernet, centernet_terms, runner, save_teacher, train_config
from mmengine.hooks import Hook

from mmkd.distillation import inherit
from mmkd.engine.config import override
from mmkd.errors import UserError

BIG = centernet(base_channels=8)
HEAD = ['bbox_head', 'neck.deconv_layers.1']


class _AtTheStart(Hook):
    """Keeps the student's weights as the first iteration finds them."""

    priority = 'LOWEST'

    def before_train(self, runner):
        self.state = {name: value.clone() for name, value in runner.model.state_dict().items()}


def _config(folder, options=None, iters=1, **changes):
    folder.mkdir(exist_ok=True)
    cfg = train_config(folder / 'run', centernet(), [dict(type='DistillationHook')], iters=iters,
                       batch=2, teachers=dict(big=save_teacher(folder, 'big', BIG)),
                       **dict(dict(terms=centernet_terms('wh'), distill_weights=dict(wh=1.0)),
                              **changes))
    override(cfg, options)
    return cfg


def _start(cfg):
    run, start = runner(cfg), _AtTheStart()
    run.register_hook(start)
    run.train()
    return start.state


def _same(found, other):
    """Names of what does not merely begin alike everywhere, and is equal."""
    return {name for name, value in found.items() if name in other
            and value.shape == other[name].shape and torch.equal(value, other[name])}


def test_what_is_named_comes_from_the_teacher_and_the_rest_is_the_students_own(
        tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(inherit, 'print_log', lambda text, *_: said.append(text))
    plain = _start(_config(tmp_path / 'plain'))
    found = _start(_config(tmp_path / 'other', {'inherit.big': HEAD}))
    named = {name for name in found if name.startswith(tuple(f'{part}.' for part in HEAD))}
    assert named <= _same(found, build(BIG, 1).state_dict())
    assert found.keys() - named <= _same(found, plain)
    assert not torch.equal(found['bbox_head.wh_head.0.weight'], plain['bbox_head.wh_head.0.weight'])
    # Three branches of two convolutions; one convolution with a batch norm of five tensors.
    assert said == ["The student begins with weights of teacher 'big': 12 tensors of bbox_head, "
                    '6 tensors of neck.deconv_layers.1']


def test_a_resumed_run_goes_on_as_it_was(tmp_path, monkeypatch):
    cfg = _config(tmp_path, inherit=dict(big='bbox_head'))
    _start(cfg)
    saved = torch.load(tmp_path / 'run' / 'iter_1.pth', weights_only=False)['state_dict']
    teacher = build(BIG, 1).state_dict()
    assert not torch.equal(saved['bbox_head.wh_head.0.weight'],
                           teacher['bbox_head.wh_head.0.weight'])
    said = []
    monkeypatch.setattr(inherit, 'print_log', lambda text, *_: said.append(text))
    resumed = _config(tmp_path, iters=2, inherit=dict(big='bbox_head'), resume=True,
                      load_from=str(tmp_path / 'run' / 'iter_1.pth'))
    assert saved.keys() == _same(_start(resumed), saved) and not said


def test_a_run_without_terms_inherits_all_the_same(tmp_path):
    """So that what inheriting gives alone can be measured."""
    found = _start(_config(tmp_path, inherit=dict(big='bbox_head'), distill_weights=dict(wh=0.0)))
    assert 'bbox_head.wh_head.0.weight' in _same(found, build(BIG, 1).state_dict())


@pytest.mark.parametrize(('options', 'message'), [
    (dict(big='neck'), r"'neck.deconv_layers.0.conv.weight' is of shape \(8, 32, 3, 3\) in the "
                       r"student and of shape \(8, 64, 3, 3\) in teacher 'big': name modules"),
    (dict(big=['bbox_haed']), r"no module 'bbox_haed' in the student \(CenterNet\)\. Did you mean "
                              r"'bbox_head'"),
    (dict(bigg='neck'), r"inherit names teacher 'bigg', .* are big: .* Did you mean 'big'"),
    (dict(big=['bbox_head', 'bbox_head.wh_head']), 'twice: name each module once'),
    ('big', r"inherit='big' does not say what is copied: give dict\(TEACHER=")])
def test_what_does_not_fit_is_one_sentence(options, message, tmp_path):
    run = runner(_config(tmp_path, inherit=options))
    with pytest.raises(UserError, match=message) as error:
        run.train()
    assert '\n' not in str(error.value)
