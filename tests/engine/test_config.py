"""Mistakes in configs."""

import pytest
from tiny_run import ROOT, write_config

from mmkd.engine.config import load_config, validate_config
from mmkd.errors import UserError


def check(tmp_path, more='', **options):
    validate_config(load_config(write_config(tmp_path, more), options))


def test_shipped_runtime_passes(tmp_path):
    check(tmp_path)


@pytest.mark.parametrize('more, message', [
    ('custom_hooks = [dict(type="HeatmapDistilHook")]',
     r"'HeatmapDistilHook' at custom_hooks\[0\].* Did you mean 'HeatmapDistillHook'\?"),
    ('custom_hooks = [dict(type="HeatmapDistillHook", wieght=1)]',
     "unexpected argument 'wieght' of HeatmapDistillHook.* Did you mean 'weight'"),
    ('custom_hooks = [dict(type="DistillHook", weight=1, loss=dict(type="KDLos"))]',
     r"'KDLos' at custom_hooks\[0\]\.loss"),
    ('default_hooks["checkpoint"] = dict(type="SafeCheckpointHook", intervall=1)',
     "'intervall' of SafeCheckpointHook at default_hooks.checkpoint. Did you mean 'interval'"),
    ('custom_hooks = [dict(type="EpochSeedHook", priority="LOW", qqqqq=3)]',
     "'qqqqq' of EpochSeedHook .* It takes: priority"),
    ('model["type"] = "CentreNet"', "'CentreNet' at model. Did you mean 'CenterNet'"),
    ('model["backbone"] = dict(type="ResNett")', "at model.backbone. Did you mean 'ResNet'"),
    ('train_dataloader["dataset"] = dict(type="VOCLayoutDatset")',
     "at train_dataloader.dataset. Did you mean 'VOCLayoutDataset'"),
    ('train_dataloader["dataset"]["pipeline"] = [dict(type="Resize"), dict(type="RandmFlip")]',
     r"pipeline\[1\]. Did you mean 'RandomFlip'"),
    ('test_evaluator = dict(type="VOCMeanAPMetrik")', "Did you mean 'VOCMeanAPMetric'"),
    ('optim_wrapper["optimizer"]["type"] = "Adan"', 'at optim_wrapper.optimizer'),
    ('custom_hook = []', "unknown entry 'custom_hook'.* Did you mean 'custom_hooks'"),
    ('model["bbox_head"] = dict(type="CenterNetHead", num_classes=3)',
     r'num_classes is 3, but train_dataloader has 2 classes \(a, b\)'),
    ('train_dataloader["dataset"] = dict(type="RepeatDataset", times=2, dataset=dict('
     'type="VOCLayoutDataset", metainfo=dict(classes=("x",))))\n'
     'model["bbox_head"] = dict(type="CenterNetHead", num_classes=2)',
     r'train_dataloader has 1 classes \(x\)'),
    ('model = None', 'has no student'),
])
def test_mistakes_are_named(tmp_path, more, message):
    with pytest.raises(UserError, match=message) as raised:
        check(tmp_path, more)
    assert '\n' not in str(raised.value)


def test_config_without_a_model():
    with pytest.raises(UserError, match='has no student'):
        validate_config(load_config(ROOT / 'configs/_base_/default_runtime.py'))


def test_missing_config(tmp_path):
    write_config(tmp_path)
    with pytest.raises(UserError, match=r"tiny_\.py' does not exist. Did you mean 'tiny'"):
        load_config(tmp_path / 'tiny_.py')
    with pytest.raises(UserError, match='In that folder there are: tiny'):
        load_config(tmp_path / 'quux.py')
    with pytest.raises(UserError, match='no folder'):
        load_config(tmp_path / 'no' / 'tiny.py')


@pytest.mark.parametrize('content, message', [
    ('a = (1\nb = 2', 'no valid Python'),
    ('a = undefined_name', "NameError: name 'undefined_name'"),
    ("_base_ = ['missing_base.py']", 'missing_base.py'),
])
def test_broken_config(tmp_path, content, message):
    (tmp_path / 'broken.py').write_text(content)
    with pytest.raises(UserError, match=message) as raised:
        load_config(tmp_path / 'broken.py')
    assert '\n' not in str(raised.value)
    assert 'broken.py' in str(raised.value)


def test_options(tmp_path):
    config = load_config(write_config(tmp_path), {'train_cfg.max_epochs': 7, 'work_dir': 'x'})
    assert config.train_cfg.max_epochs == 7
    with pytest.raises(UserError, match='do not fit'):
        load_config(write_config(tmp_path, 'custom_hooks = [dict(type="EpochSeedHook")]'),
                    {'custom_hooks.4.weight': 1})
    with pytest.raises(UserError, match=r"unknown entry 'randomnes'.* Did you mean 'randomness'"):
        check(tmp_path, **{'randomnes.seed': 1})
