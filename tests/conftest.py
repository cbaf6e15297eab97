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


@pytest.fixture(autouse=True)
def _no_visualizers():
    """mmengine keeps visualizers by name, and a hook takes whichever name came last: in a process
    of many runs that of another test."""
    from mmengine.visualization import Visualizer

    from mmkd.registry import VISUALIZERS
    for cls in (Visualizer, VISUALIZERS.get('DetLocalVisualizer')):
        cls._instance_dict.clear()
