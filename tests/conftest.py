"""Tiny networks and data that the tests share."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `helpers`, also in spawned processes


@pytest.fixture(autouse=True)
def _scope():
    """Every test starts in mmkd's scope, as a config with `default_scope = 'mmkd'` does."""
    from mmengine.registry import DefaultScope
    with DefaultScope.overwrite_default_scope('mmkd'):
        yield
