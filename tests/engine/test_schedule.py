"""The epochs of a training and of its schedule."""

import pytest
from mmengine.config import Config
from tiny_run import ROOT

from mmkd.engine.config import load_config
from mmkd.engine.schedule import schedule_mismatch, set_epochs
from mmkd.errors import UserError


def config(*schedulers, epochs=24):
    return Config(dict(train_cfg=dict(by_epoch=True, max_epochs=epochs),
                       param_scheduler=list(schedulers)))


@pytest.mark.parametrize('name', ['small_24e', 'centernet_100e'])
@pytest.mark.parametrize('epochs', [6, 200])
def test_shipped_schedules_end_with_the_training(name, epochs):
    cfg = load_config(ROOT / f'configs/_base_/schedules/{name}.py')
    set_epochs(cfg, epochs)
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler[-1].end == epochs
    assert schedule_mismatch(cfg) is None
    if name == 'small_24e':
        assert cfg.param_scheduler[0].end == 50  # counts iterations
    else:
        assert cfg.param_scheduler[0].milestones == {6: [4, 5], 200: [128, 172]}[epochs]


def test_every_count_of_epochs_is_scaled():
    cfg = config(dict(type='LinearLR', start_factor=0.1, begin=0, end=4),
                 dict(type='CosineAnnealingLR', begin=4, end=24, T_max=20),
                 dict(type='StepLR', step_size=8),
                 dict(type='CosineRestartLR', periods=[8, 16], restart_weights=[1, 0.5]))
    set_epochs(cfg, 12)
    assert cfg.param_scheduler == [
        dict(type='LinearLR', start_factor=0.1, begin=0, end=2),
        dict(type='CosineAnnealingLR', begin=2, end=12, T_max=10),
        dict(type='StepLR', step_size=4),
        dict(type='CosineRestartLR', periods=[4, 8], restart_weights=[1, 0.5])]


def test_warm_ups_and_ends_of_terms_are_scaled():
    cfg = config(epochs=240)
    cfg.terms = dict(dkd=dict(warmup_epochs=20), ab=dict(until=30), short=dict(warmup_epochs=1),
                     none=dict(warmup_epochs=0), share=dict(until=0.9), plain=dict(weight=1.0))
    set_epochs(cfg, 24)
    assert cfg.terms == dict(
        dkd=dict(warmup_epochs=2), ab=dict(until=3), short=dict(warmup_epochs=1),
        none=dict(warmup_epochs=0), share=dict(until=0.9), plain=dict(weight=1.0))


def test_what_cannot_be_scaled_is_refused():
    with pytest.raises(UserError, match=r'counts iterations: use .*max_iters'):
        set_epochs(Config(dict(train_cfg=dict(type='IterBasedTrainLoop', max_iters=9))), 2)
    with pytest.raises(UserError, match='--epochs is 0'):
        set_epochs(config(), 0)
    with pytest.raises(UserError, match=r'leaves no epoch to CosineAnnealingLR at .*\[1\]'):
        set_epochs(config(dict(type='LinearLR', begin=0, end=4),
                          dict(type='CosineAnnealingLR', begin=4, end=24)), 1)


@pytest.mark.parametrize(('schedulers', 'end'), [
    ([dict(type='CosineAnnealingLR', T_max=20, begin=4)], 24),
    ([dict(type='LinearLR', end=5), dict(type='MultiStepLR', milestones=[8, 11], end=12)], 12),
    ([dict(type='LinearLR', start_factor=1, end_factor=0.01, end=12)], 12),
    ([dict(type='PolyLR', end=12)], 12),
    ([dict(type='CosineAnnealingLR', begin=1, end=9, T_max=8),
      dict(type='ConstantLR', factor=1, begin=9, end=12)], 12),
    ([dict(type='ConstantLR', end=5)], None),
    ([dict(type='LinearLR', end=5)], None),
    ([dict(type='CosineAnnealingLR', by_epoch=False, end=900)], None),
    ([dict(type='MultiStepLR', milestones=[8, 11])], None),
    ([], None),
])
def test_a_schedule_that_ends_elsewhere_is_named(schedulers, end):
    said = schedule_mismatch(config(*schedulers, epochs=6))
    assert said == (end and f'the learning-rate schedule ends at epoch {end} and training at epoch '
                    '6: mmkd train --epochs changes both alike')
    if end:
        assert schedule_mismatch(config(*schedulers, epochs=end)) is None
