"""Mistakes in configs."""

from contextlib import nullcontext

import pytest
from mmengine.config import Config
from tiny_run import ROOT, write_config
from torch import nn

from mmkd.distillation.entries import built_terms
from mmkd.engine.config import load_config, validate_config
from mmkd.engine.config_values import add_tracker
from mmkd.errors import UserError
from mmkd.registry import MODELS


def check(tmp_path, more='', **options):
    validate_config(load_config(write_config(tmp_path, more), options))


@MODELS.register_module(force=True)
class MarginLoss(nn.Module):
    """A loss with an argument that has no default."""

    def __init__(self, margin, student_channels):
        super().__init__()


def _terms(text):
    return f'custom_hooks = [dict(type="DistillationHook")]\nterms = dict({text})'


@pytest.mark.parametrize('more, message', [
    ('custom_hooks = [dict(type="DistilationHook")]',
     r"'DistilationHook' at custom_hooks\[0\].* Did you mean 'DistillationHook'\?"),
    ('custom_hooks = [dict(type="DistillationHook", scedule="joint")]',
     "unexpected argument 'scedule' of DistillationHook.* Did you mean 'schedule'"),
    (_terms('heatmap=dict(type="CentreNetTerm", map="wh", loss=dict(type="KDLoss"))'),
     "'CentreNetTerm' at terms.heatmap. Did you mean 'CenterNetTerm'"),
    (_terms('heatmap=dict(type="CenterNetTerm", map="wh", jiont="max", '
            'loss=dict(type="HeatmapLoss"))'),
     "unexpected argument 'jiont' of CenterNetTerm at terms.heatmap. Did you mean 'joint'"),
    (_terms('x=dict(tap="neck", loss=dict(type="KDLos"))'),
     "'KDLos' at terms.x.loss. Did you mean 'KDLoss'"),
    (_terms('x=dict(tap="neck", loss=dict(type="KDLoss", temprature=4))'),
     "unexpected argument 'temprature' of KDLoss at terms.x.loss. Did you mean 'temperature'"),
    (_terms('x=dict(tap="neck", loss=dict(type="MarginLoss"))'),
     "MarginLoss at terms.x.loss lacks the argument 'margin'"),
    (_terms('x=dict(tap="neck", loss=dict(type="PKDLoss"), connector=dict(type="ConvConnector", '
            'kernel=3))'), "unexpected argument 'kernel' of ConvConnector at terms.x.connector"),
    (_terms('x=dict(tap="neck")'), "Term at terms.x lacks the argument 'loss'"),
    (_terms('x=dict(loss=dict(type="PKDLoss"))'), "Term at terms.x lacks the argument 'tap'"),
    (_terms('x=dict(tap="neck", loss="PKDLoss")'), "terms.x.loss is 'PKDLoss': write dict"),
    (_terms('x="PKDLoss"'), "terms.x is 'PKDLoss': describe a term"),
    ('terms = ["PKDLoss"]', r"terms is \['PKDLoss'\]: give every term a name"),
    ('custom_hooks = [dict(type="DistillationHook", terms=dict(x=dict(type="SelfTerm", tap="neck", '
     'loss=dict(type="KDLoss", temprature=4))))]',
     r"unexpected argument 'temprature' of KDLoss at custom_hooks\[0\].terms.x.loss"),
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
    ('train_cfg["max_epoch"] = 1',
     "'max_epoch' of EpochBasedTrainLoop at train_cfg. Did you mean 'max_epochs'"),
    ('train_cfg = dict(by_epoch=True, max_epoch=1)', "Did you mean 'max_epochs'"),
    ('test_cfg["fp61"] = True', "'fp61' of TestLoop at test_cfg. Did you mean 'fp16'"),
    ('default_scope = ""', "default_scope is '': write default_scope = 'mmkd'"),
    ('train_dataloader = [1, 2]', r'train_dataloader is \[1, 2\]: write dict'),
    ('default_hooks = 3', 'default_hooks is 3: write dict'),
    ('custom_hooks = 2 * [dict(type="DistillationHook")]', 'more than one DistillationHook: keep'),
    ('custom_hooks = dict(type="NaN")', "custom_hooks is {'type': 'NaN'}: write a list"),
    ('train_dataloader["batch_size"] = True', 'batch_size is True: give a whole number'),
    ('model["type"] = ".CenterNet"', "unknown type '.CenterNet' at model"),
    ('train_dataloader["batch_size"] = 0',
     r'train_dataloader.batch_size is 0: give a whole number of at least 1'),
    ('val_dataloader = dict(batch_size="4")', "val_dataloader.batch_size is '4': give a whole"),
    ('test_dataloader["num_workers"] = -1', 'test_dataloader.num_workers is -1: give .* least 0'),
    ('visualizer["vis_backends"] = "TensorboardVisBackend"',
     r"visualizer.vis_backends is 'TensorboardVisBackend': write a list, \[dict\("),
    ('visualizer["vis_backends"] = ["TensorboardVisBackend"]', 'write a list'),
    ('visualizer["vis_backends"] = dict(type="LocalVisBackend")', 'write a list'),
    ('unlabeled = dict(data_root="photos/")',
     "unknown entry 'unlabeled'.* Did you mean 'unlabelled'"),
    ('chanels_last = True', "'chanels_last'.* Did you mean 'channels_last'"),
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
    with pytest.raises(UserError, match=message):
        check(tmp_path, more)


@pytest.mark.parametrize('backend, told', [
    ('TensorboardVisBackend', None),
    ('TensorboardVisBackend', 'TensorboardVisBackend, whose package is not inst'),
    ('WandbVisBackend', r'WandbVisBackend, whose .* pip install wandb')])
def test_a_tracker_must_be_installed_if_it_is_asked_for(tmp_path, monkeypatch, backend, told):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None if told else True)
    with pytest.raises(UserError, match=told) if told else nullcontext():
        check(tmp_path, f'visualizer["vis_backends"] = [dict(type="{backend}")]')


@pytest.mark.parametrize('given, variable, place', [
    (dict(visualizer=dict(type='Visualizer')), None, 'sqlite:///mlflow.db'),
    ({}, 'http://localhost:5000', 'http://localhost:5000')])
def test_trackers(given, variable, place, monkeypatch):
    monkeypatch.delenv('MLFLOW_TRACKING_URI', raising=False)
    if variable:
        monkeypatch.setenv('MLFLOW_TRACKING_URI', variable)
    cfg = Config(given)
    for _ in range(2):
        add_tracker(cfg, 'mlflow')
    assert cfg.visualizer.vis_backends == [
        dict(type='LocalVisBackend'), dict(type='MLflowVisBackend', tracking_uri=place)]
    add_tracker(cfg, 'tensorboard')
    assert cfg.visualizer.vis_backends[2:] == [dict(type='TensorboardVisBackend')]


def test_an_option_that_is_read_too_late_is_refused(tmp_path):
    with pytest.raises(UserError, match=r'vis_backends.0.type changes nothing: give visualiz'):
        check(tmp_path, **{'vis_backends.0.type': 'TensorboardVisBackend'})


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
    assert 'broken.py' in str(raised.value)


def test_what_follows_from_the_data_need_not_be_written(tmp_path):
    """CRD's loss takes labels and channels, a connector channels: both are known in the run."""
    check(tmp_path, _terms('x=dict(tap="neck", loss=dict(type="CRDLoss"), '
                           'connector=dict(type="ConvConnector"))'))
    check(tmp_path, 'custom_hooks = [dict(type="DistillationHook", terms=dict('
                    'x=dict(type="SelfTerm", tap="neck", loss=dict(type="PKDLoss"))))]')


@pytest.mark.parametrize('path', [
    'ddq/ddq-detr-4scale_r50_8xb2-12e_coco',  # names mmcv's NMS in its model
    'rtmdet/rtmdet_tiny_8xb32-300e_coco',  # has a hook with a pipeline
    'albu_example/mask-rcnn_r50_fpn_albu-1x_coco'])
def test_configs_of_mmdetection_pass(path):
    validate_config(load_config(f'mmdet::{path}.py'))


def test_hooks_of_old_and_their_options(tmp_path):
    """What --cfg-options says of a hook of old reaches its term, which is checked as others are."""
    old = 'custom_hooks = [dict(type="TeacherHook"), dict(type="HeatmapDistillHook")]\n'
    config = load_config(write_config(tmp_path, old), {'custom_hooks.1.joint': 'max'})
    validate_config(config)
    assert config.terms.heatmap.joint == 'max'
    assert [hook.type for hook in config.custom_hooks] == ['DistillationHook']
    with pytest.raises(UserError, match=r"'wieght' of CenterNetTerm.* Did you mean 'weight'"):
        check(tmp_path, old + 'custom_hooks[1]["wieght"] = 1')


def test_options_reach_a_term_by_its_name():
    config = load_config(ROOT / 'configs/centernet_mt_r18.py',
                         {'terms.heatmap.joint': 'max', 'distill_weights.feature': 7})
    validate_config(config)
    found = {term.name: term for term in built_terms(config.terms, config.distill_weights)}
    assert found['heatmap'].joint == 'max' and found['wh'].joint == 'labels'
    assert found['feature'].weight == 7 and found['heatmap'].weight == 5


@pytest.mark.parametrize('option, value, said', [
    ('custom_hooks.4.weight', 1, 'do not fit'),
    ('visualizer.vis_backends.0', 'TensorboardVisBackend',
     r'backends.0 is a dict .*backends.0.type=TensorboardVis'),
    ('model', 'CenterNet', "model is a dict and cannot be 'CenterNet'"),
    ('optim_wrapper.optimizer', 'SGD', 'as in --cfg-options optim_wrapper.optimizer.type=SGD'),
    ('optim_wrapper.optimizer.lr', 'abc', "lr is 0.01 and cannot be 'abc': give a number"),
    ('param_scheduler.0.T_max', 'four', "T_max is 4 and cannot be 'four'"),
    ('train_cfg.max_epochs', 'two', "max_epochs is 4 and cannot be 'two'"),
    ('param_scheduler', 3, "param_scheduler is 3: write a list"),
])
def test_options_that_do_not_fit(tmp_path, option, value, said):
    with pytest.raises(UserError, match=said):
        load_config(write_config(tmp_path, 'visualizer["vis_backends"] = [dict(type="X")]\n'
                                 'custom_hooks = [dict(type="EpochSeedHook")]'), {option: value})


def test_options(tmp_path):
    config = load_config(write_config(tmp_path), {'train_cfg.max_epochs': 7, 'work_dir': 'x'})
    assert config.train_cfg.max_epochs == 7
    with pytest.raises(UserError, match=r"unknown entry 'randomnes'.* Did you mean 'randomness'"):
        check(tmp_path, **{'randomnes.seed': 1})
