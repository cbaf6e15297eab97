"""What a shell is told when Tab is pressed behind `mmkd ...`, by argcomplete's protocol."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmkd.commands import COMMANDS

pytest.importorskip('argcomplete')
ROOT = Path(__file__).parents[2]


def completions(line, tmp_path):
    """What may stand at the end of a command line; and what Python had to import for it."""
    answer = tmp_path / 'answer'
    code = ("import atexit, os, sys\n"
            "end = os._exit\n"
            "os._exit = lambda code: (print(*({'torch', 'mmengine'} & sys.modules.keys()), "
            "flush=True), end(code))\n"
            "from mmkd.commands import main; main()")
    done = subprocess.run(
        [sys.executable, '-c', code], text=True, capture_output=True, check=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT), '_ARGCOMPLETE': '1', '_ARGCOMPLETE_IFS': '\n',
             '_ARGCOMPLETE_STDOUT_FILENAME': str(answer), 'COMP_TYPE': '9',
             'COMP_LINE': line, 'COMP_POINT': str(len(line))})
    assert done.stdout == '\n', done.stdout + done.stderr
    return {word.strip() for word in answer.read_text().split('\n')}


def test_the_names_of_the_commands(tmp_path):
    assert set(COMMANDS) <= completions('mmkd ', tmp_path)
    assert completions('mmkd tr', tmp_path) == {'train'}


def test_the_options_of_a_command(tmp_path):
    assert completions('mmkd train x.py --ch', tmp_path) == {'--channels-last'}
    assert completions('mmkd train x.py --log ', tmp_path) == {'tensorboard', 'mlflow', 'wandb'}
    assert {'--images', '--keep-float'} <= completions('mmkd quantize --', tmp_path)
