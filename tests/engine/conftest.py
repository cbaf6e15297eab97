"""Running the tools on the tiny run."""

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `tiny_run`

_numbers = itertools.count()


@pytest.fixture
def environment():
    """Of a process that finds mmkd, `tiny_run` and this Python."""
    here = Path(__file__).parent
    return {**os.environ, 'OMP_NUM_THREADS': '1',
            'PYTHONPATH': os.pathsep.join([str(here.parents[1]), str(here)]),
            'PATH': os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])}


@pytest.fixture
def tool(environment):
    """Run a tool to its end: ``tool('train.py', config, ...)``."""
    def run(name, *args, check=True):
        path = Path(__file__).parents[2] / 'tools' / name
        program = ['bash'] if path.suffix == '.sh' else [sys.executable]
        done = subprocess.run([*program, str(path), *map(str, args)], env=environment, text=True,
                              capture_output=True, timeout=240)
        assert not check or done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done
    return run


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
