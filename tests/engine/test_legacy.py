"""Configs of version 0.1.0: what becomes of their hooks, weights and caches."""

import pytest
from mmengine.config import Config

from mmkd.distillation.entries import built_terms
from mmkd.engine import legacy
from mmkd.engine.legacy import modernise
from mmkd.errors import UserError


@pytest.fixture
def warnings(monkeypatch):
    """What is printed, and how loud."""
    found = []
    monkeypatch.setattr(legacy, 'print_log',
                        lambda text, logger, level: found.append((level, text)))
    return found


def _config(*hooks, **entries):
    return Config(dict(custom_hooks=[dict(type='NaNHook'), *hooks], **entries))


def test_hooks_become_terms_and_weights_names(warnings):
    cfg = _config(
        dict(type='TeacherHook', schedule='progressive'), dict(type='HeatmapDistillHook'),
        dict(type='WidthHeightDistillHook', joint='max', loss=dict(type='PeakWidthHeightLoss')),
        dict(type='OffsetDistillHook', weight=0.5), dict(type='AttentionDistillHook',
                                                         temperature=0.3),
        dict(type='DistillHook', name='neck', tap='neck', loss=dict(type='PKDLoss')),
        dict(type='SelfDistillHook', tap='bbox_head:input', weight=2, loss=dict(type='PKDLoss')),
        distill_weights=(10, 1, 0.1, 20), teachers=dict(a=1),
        teacher_cache=dict(folder='c', views=2, terms=['distill_heatmap', 'neck']))
    modernise(cfg)
    assert cfg.custom_hooks == [dict(type='DistillationHook', schedule='progressive'),
                                dict(type='NaNHook')]
    assert cfg.terms.to_dict() == dict(
        heatmap=dict(type='CenterNetTerm', map='heatmap', loss=dict(type='SoftFocalLoss')),
        wh=dict(type='CenterNetTerm', map='wh', joint='max',
                loss=dict(type='PeakWidthHeightLoss')),
        offset=dict(type='CenterNetTerm', map='offset', loss=dict(type='OffsetLoss')),
        attention=dict(type='FeatureTerm', joint='each',
                       loss=dict(type='AttentionLoss', temperature=0.3)),
        neck=dict(type='Term', tap='neck', loss=dict(type='PKDLoss')),
        self_distill=dict(type='SelfTerm', tap='bbox_head:input:-1', loss=dict(type='PKDLoss')))
    expected = dict(heatmap=10, wh=1, offset=0.5, attention=20, neck=1.0, self_distill=2)
    assert cfg.distill_weights == expected
    assert {term.name: term.weight for term in built_terms(cfg.terms, cfg.distill_weights)
            } == expected
    assert list(cfg.teacher_cache.terms) == ['heatmap', 'neck']
    [(level, text)] = warnings
    assert level == 30
    for part in ('next version', "'map': 'heatmap'", 'DistillationHook', "'attention': 20"):
        assert part in text
    modernise(cfg)
    assert len(warnings) == 1, 'there is nothing left to do'


def test_own_weights_stay_where_no_others_are(warnings):
    cfg = _config(dict(type='TeacherHook', teachers=dict(a=1)),
                  dict(type='DistillHook', tap='neck', loss=dict(type='PKDLoss'), weight=None),
                  dict(type='FeatureDistillHook', weight=3))
    modernise(cfg)
    assert 'distill_weights' not in cfg
    assert {term.name: term.weight for term in built_terms(cfg.terms, None)
            } == dict(distill=1.0, feature=3)
    assert cfg.custom_hooks[0].teachers == dict(a=1)


def test_weights_by_position_that_nobody_takes(warnings):
    """As a _base_ may have them: each term's own weight went first."""
    cfg = _config(dict(type='TeacherHook'), dict(type='HeatmapDistillHook', weight=3),
                  distill_weights=(1, 2, 3, 4))
    modernise(cfg)
    [term] = built_terms(cfg.terms, cfg.distill_weights)
    assert term.weight == 3


def test_a_config_of_today_is_left_alone(warnings):
    cfg = _config(dict(type='DistillationHook'), terms=dict(a=1), distill_weights=(1,))
    before = cfg.to_dict()
    modernise(cfg)
    assert cfg.to_dict() == before and not warnings


def test_two_terms_of_one_name_are_refused(warnings):
    hook = dict(type='DistillHook', tap='neck', loss=dict(type='PKDLoss'))
    with pytest.raises(UserError, match="two distillation hooks are called 'distill'"):
        modernise(_config(dict(type='TeacherHook'), hook, dict(hook, tap='bbox_head')))
