"""Runners of the tiny run, and children that are killed."""

import itertools
import os
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `tiny_run`

_numbers = itertools.count()


@pytest.fixture
def start(tmp_path):
    """Build a runner of the tiny run: ``start('work', more='...', train_cfg=...)``."""
    from mmengine.runner import Runner
    from tiny_run import write_config

    from mmkd.engine.config import load_config

    def build(name='work', more='', **options):
        cfg = load_config(write_config(tmp_path, more), options)
        cfg.work_dir, cfg.log_level = str(tmp_path / name), 'ERROR'
        cfg.experiment_name = f'{tmp_path.name}-{name}-{next(_numbers)}'
        return Runner.from_cfg(cfg)
    return build


@pytest.fixture
def killed():
    """Call a function in a child process that is expected to kill itself with SIGKILL."""
    def call(function):
        child = os.fork()
        if child == 0:
            try:
                import torch
                torch.set_num_threads(1)
                function()
            finally:
                os._exit(3)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, status
    return call
