"""The environment report."""

import platform

import cv2
import torch

import mmkd
from mmkd.engine.environment import environment_report


def test_says_what_a_bug_report_needs():
    items = dict(line.split('  ', 1) for line in environment_report().splitlines())
    items = {name: value.strip() for name, value in items.items()}
    assert items['python'] == platform.python_version()
    assert items['torch'] == torch.__version__
    assert items['mmkd'].startswith(mmkd.__version__)
    assert any(value == cv2.__version__ for name, value in items.items() if 'opencv' in name) or (
        'opencv-python-headless' in items)
    assert 'CPU' in items['devices']
    assert items['mmcv operators'].split()[0] in ('compiled', 'PyTorch')
