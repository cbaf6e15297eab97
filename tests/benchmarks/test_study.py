"""The study's table, and that every row of every study has a config of that schedule."""

import sys
from pathlib import Path

import pytest
from mmengine.config import Config

import mmkd  # noqa: F401

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / 'benchmarks'))

import study  # noqa: E402


@pytest.mark.parametrize('name', study.STUDIES)
def test_every_row_has_a_config(name):
    one = study.STUDIES[name]
    for teacher, epochs in one.teachers.items():
        config = Config.fromfile(ROOT / f'configs/{name}/centernet_{teacher}.py')
        assert config.train_cfg.max_epochs == epochs
    for student in one.students:
        for row in study.ROWS:
            config = Config.fromfile(ROOT / f'configs/{name}/{one.config(row, student)}.py')
            assert config.train_cfg.max_epochs == one.epochs
            expected = dict(alone=0, single=1).get(row, 2)
            assert len(config.get('teachers', {})) == expected


def test_a_line_by_hand():
    # Differences 1, 2, 3: mean 2, t interval 2.5; deviation of 51, 42, 63: 10.5.
    found = study.line('r18', [51.0, 42.0, 63.0], [50.0, 40.0, 60.0])
    assert found == '| r18 | 52.0 | 10.5 | 51.0, 42.0, 63.0 | +2.0 (-0.5 to +4.5) |'
    assert study.line('r18', [51.0], None) == '| r18 | 51.0 |  | 51.0 |  |'
