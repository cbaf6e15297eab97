"""Every shipped config: its names exist, its parts fit, and the tables of the sources are there."""

import functools
from pathlib import Path

import pytest
from mmengine.config import Config

import mmkd  # noqa: F401
from mmkd.engine.config import load_config, validate_config

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / 'configs').rglob('*.py')
                 if not {'_base_', 'methods'} & set(path.parts))
DISTILLED = [path for path in CONFIGS if '_st_' in path or '_mt_' in path]


@pytest.fixture(autouse=True)
def _root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize('path', CONFIGS)
def test_config_is_valid(path):
    validate_config(load_config(path))


@pytest.mark.parametrize('path', CONFIGS)
def test_first_lines_say_how_to_run_it(path):
    head = ''.join(Path(path).read_text().splitlines(keepends=True)[:5])
    assert f'tools/train.py {path}' in head


@functools.cache
def classes_of(config):
    return Config.fromfile(config).classes


@pytest.mark.parametrize('path', DISTILLED)
def test_teachers_configs_exist_and_know_the_students_classes(path):
    cfg = Config.fromfile(path)
    assert len(cfg.distill_weights) == 4
    assert [hook.type for hook in cfg.custom_hooks] == ['DistillationHook']
    last = 'attention' if '_source' in path else 'feature'
    assert list(cfg.terms) == ['heatmap', 'wh', 'offset', last]
    assert len(cfg.teachers) == (2 if '_mt_' in path else 1)
    for teacher in cfg.teachers.values():
        assert classes_of(teacher.config) == cfg.classes


def test_the_first_table_is_complete():
    """Four students, each alone, with one teacher and with two."""
    for student in ('r18', 'r34', 'mobilenetv2', 'efficientnetb0'):
        assert f'configs/centernet/centernet_{student}_voc.py' in CONFIGS
        assert f'configs/multi_teacher/centernet_st_{student}_voc.py' in CONFIGS
        both = ('configs/centernet_mt_r18.py' if student == 'r18'
                else f'configs/multi_teacher/centernet_mt_{student}_voc.py')
        assert both in CONFIGS


@pytest.mark.parametrize('weights', ['(100,10,0.1,100)', '(100,10,1,1)', '(10,0.1,1000,10)',
                                     '(10,100,0.1,100)', '(0.1,10,1000,1)'])
def test_the_weight_settings_are_one_option(weights):
    from argparse import ArgumentParser

    from mmengine.config import DictAction
    parser = ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    options = parser.parse_args(['--cfg-options', f'distill_weights={weights}']).cfg_options
    cfg = load_config('configs/multi_teacher/centernet_mt_r18_source_voc.py', options)
    assert tuple(cfg.distill_weights) == tuple(float(w) for w in weights.strip('()').split(','))
