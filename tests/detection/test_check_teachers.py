"""What is looked at before the first epoch: each fault is injected and has to be named."""

import logging

import pytest
import torch
from helpers import (
    CLASSES,
    centernet,
    centernet_terms,
    distillation,
    distillation_hook,
    runner,
    save_teacher,
    train_config,
)
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import nn

from mmkd.distillation.check import (
    TeacherReport,
    _matches,
    check_connectors,
    evaluate_teacher,
    swapped_classes,
    warnings_about,
)
from mmkd.distillation.teachers import build_teacher
from mmkd.errors import UserError
from mmkd.registry import MODELS

GOOD = TeacherReport('good', 'pascal_voc/mAP', 0.7, 50, 1.0, {})


@MODELS.register_module()
class FaultyLoss(nn.Module):
    """A loss of features with a fault."""

    def __init__(self, fault):
        super().__init__()
        self.fault = fault

    def forward(self, student, teacher):
        loss = student.square().sum()
        return dict(nan=float('nan') * loss, zero=0 * loss, huge=1e9 * loss,
                    cut=loss.detach() + 1.0)[self.fault]


@pytest.fixture
def messages(monkeypatch):
    found = []
    monkeypatch.setattr(logging.Logger, 'info', lambda self, text, *a, **k: found.append(text))
    monkeypatch.setattr(logging.Logger, 'warning', lambda self, text, *a, **k: found.append(text))
    return found


def _config(tmp_path, teachers, terms, val=False, **extra):
    config = train_config(tmp_path, centernet(), distillation(), iters=1, teachers=teachers,
                          terms=terms, **extra)
    if val:
        config.val_dataloader = ConfigDict(
            batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(type='NoiseDetection', length=60))
        config.val_evaluator = dict(type='VOCMeanAPMetric')
        config.val_cfg = dict(type='ValLoop')
        config.train_cfg.val_interval = 10
    return config


def _faulty(fault):
    return dict(term=dict(tap='bbox_head:input:-1', connector=dict(type='ConvConnector'),
                          loss=dict(type='FaultyLoss', fault=fault)))


@pytest.mark.parametrize(('fault', 'sentence'), [
    ('nan', "term 'term' has the loss nan in the first step"),
    ('cut', "term 'term' has a loss .* and no gradient at bbox_head:input:-1")])
def test_a_term_that_teaches_nothing_stops_the_run(tmp_path, one_teacher, fault, sentence):
    with pytest.raises(UserError, match=sentence):
        runner(_config(tmp_path, one_teacher, _faulty(fault))).train()


@pytest.mark.parametrize(('fault', 'sentence'), [
    ('zero', "term 'term' is exactly 0"), ('huge', "term 'term' drowns")])
def test_a_term_out_of_proportion_is_named(tmp_path, one_teacher, messages, fault, sentence):
    runner(_config(tmp_path, one_teacher, _faulty(fault))).train()
    assert any(sentence in text for text in messages)


def test_a_teacher_that_begins_as_the_student_need_not_teach_at_once(tmp_path, messages):
    term = dict(mean=dict(tap='bbox_head:input:-1', loss=dict(type='FaultyLoss', fault='zero')))
    runner(_config(tmp_path, dict(mean=dict(ema=0.9)), term)).train()
    assert any('\n  mean, 0, ' in text for text in messages)
    assert not any("term 'mean' is exactly 0" in text for text in messages)


def test_a_healthy_run_prints_a_table_and_each_teacher_and_trains_as_without(
        tmp_path, one_teacher, messages):
    terms = centernet_terms('heatmap') | centernet_terms('feature', weight=2.0)
    states = []
    for check in (True, False):
        config = _config(tmp_path / str(check), one_teacher, terms, val=True)
        config.custom_hooks[0].check_teachers = check
        run = runner(config)
        run.train()
        states.append(run.model.state_dict())
    tables = [text for text in messages if 'gradient over that of the own loss' in text]
    assert len(tables) == 1
    assert '\n  heatmap, ' in tables[0] and '\n  feature, ' in tables[0]
    assert any("Teacher 'resnet': pascal_voc/mAP" in text and '50 validation images' in text
               and 'the student: not known yet' in text for text in messages)
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_a_connector_that_is_not_in_the_optimizer(tmp_path, one_teacher):
    run = runner(_config(tmp_path, one_teacher, centernet_terms('feature')))
    run.train()
    terms = distillation_hook(run).terms
    check_connectors(terms, run.optim_wrapper.optimizer)
    with pytest.raises(UserError, match="connector of term 'feature' to 'resnet'"):
        check_connectors(terms, torch.optim.SGD(run.model.parameters(), lr=0.1))


def test_a_teacher_at_chance_level():
    [text] = warnings_about([GOOD._replace(name='bad', value=0.001), GOOD], False)
    assert "'bad' knows nothing" in text and 'mmkd test' in text


def test_a_teacher_fed_raw_pixels(tmp_path):
    """Its config lost mean and std: the inputs it gets are pixels from 0 to 255."""
    entry = save_teacher(tmp_path, 'raw', centernet(mean=None, std=None))
    run = runner(_config(tmp_path / 'run', dict(raw=entry),
                         centernet_terms('feature'), val=True))
    run.train()
    raw = build_teacher('raw', entry['config'], entry['checkpoint'],
                        run.model.data_preprocessor, torch.device('cpu'))
    report = evaluate_teacher(run, raw, run.model)
    assert report.input_std > 50
    [text] = warnings_about([report._replace(value=0.0)], False)
    assert 'not normalised' in text
    assert not warnings_about([GOOD], False)


def test_classes_in_another_order_are_named():
    # disc and ring stand for each other; stars are right.
    pairs = [(0, 1)] * 6 + [(1, 0)] * 5 + [(2, 2)] * 3 + [(0, 2)]
    assert swapped_classes(pairs, CLASSES) == {'disc': 'ring', 'ring': 'disc'}
    [text] = warnings_about([GOOD._replace(swapped={'disc': 'ring'})], False)
    assert "takes 'disc' for 'ring'" in text and 'dataset_meta.classes' in text


@pytest.mark.parametrize('pairs', [
    [(0, 1)] * 9,                                   # too few
    [(0, 0)] * 9 + [(1, 1)] * 9 + [(0, 1)] * 5,     # mistakes
    [(i % 3, i // 3 % 3) for i in range(27)]])      # no order at all
def test_mistakes_are_no_other_order(pairs):
    assert swapped_classes(pairs, CLASSES) == {}


def test_an_object_is_matched_to_the_surest_box_that_overlaps_it():
    from mmdet.structures import DetDataSample
    sample = DetDataSample()
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]]), labels=torch.tensor([2, 1]))
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor([[0.0, 0, 9, 9], [0, 0, 10, 10], [52, 58, 70, 80]]),
        labels=torch.tensor([0, 1, 1]), scores=torch.tensor([0.9, 0.3, 0.99]))
    assert _matches(sample) == [(2, 0)]


def test_progressive_teachers_go_from_weak_to_strong():
    weak = GOOD._replace(name='weak', value=0.3)
    assert not warnings_about([weak, GOOD], True)
    [text] = warnings_about([GOOD, weak], True)
    assert 'good 0.700, weak 0.300' in text
    assert not warnings_about([GOOD, weak], False)
