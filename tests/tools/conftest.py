"""Running the tools: in this process, where that is enough, or as a user does."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TINY = ROOT / 'tests/engine'
sys.path.insert(0, str(TINY))  # for `tiny_run`


@pytest.fixture
def environment():
    """Of a process that finds mmkd, `tiny_run` and this Python."""
    return {**os.environ, 'OMP_NUM_THREADS': '1',
            'PYTHONPATH': os.pathsep.join([str(ROOT), str(TINY)]),
            'PATH': os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])}


@pytest.fixture
def script(environment):
    """Run a script to its end in a process of its own: ``script('dist_test.sh', ...)``."""
    def run(name, *args):
        done = subprocess.run(['bash', str(ROOT / 'tools' / name), *map(str, args)],
                              env=environment, text=True, capture_output=True, timeout=300)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
        return done.stdout
    return run


@pytest.fixture
def tool(monkeypatch, capsys):
    """Run a tool's `main` here; returns status, stdout and stderr."""
    def run(name, *args):
        from mmengine.logging import MessageHub, MMLogger
        # mmengine keeps them by name and second: those of an earlier call in this test, too.
        MMLogger._instance_dict.clear()
        MessageHub._instance_dict.clear()
        monkeypatch.setattr(sys, 'argv', [name, *map(str, args)])
        capsys.readouterr()
        status = 0
        try:
            runpy.run_path(str(ROOT / 'tools' / name), run_name='__main__')
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()
    return run
