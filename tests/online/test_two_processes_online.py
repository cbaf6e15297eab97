"""A cohort of three different networks in two processes, killed and resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from archives import write_cifar10
from states import assert_equal

from mmkd.distillation import load_checkpoint_safely

ROOT = Path(__file__).parents[2]
NAMES = ('resnet8_1', 'wrn_16_1_2', 'resnet14_3')
CONFIG = f"""
_base_ = '{ROOT}/configs/online/train.py'
custom_imports = dict(imports=['mmkd', 'pausing'], allow_failed_imports=False)
train_dataloader = dict(batch_size=5)
train_cfg = dict(max_epochs=3)
default_hooks = dict(
    checkpoint=dict(interval=1, max_keep_ckpts=-1), pause=dict(type='PauseInTheSecondEpoch'))
log_level = 'WARNING'
"""


def _descendants(pid):
    """All processes below one: torchrun starts its workers in sessions of their own."""
    try:
        children = Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
    except FileNotFoundError:
        return []
    return [int(child) for child in children] + [
        below for child in children for below in _descendants(int(child))]


@pytest.fixture
def start(tmp_path):
    """Start `tools/dist_train.sh CONFIG 2 ...` for PCL: ``start(work_dir, ...)``."""
    write_cifar10(tmp_path / 'data', per_batch=4)
    processes = []

    def run(work, *args, **environment):
        config = tmp_path / 'three.py'
        config.write_text(CONFIG)
        environment = {**os.environ, 'OMP_NUM_THREADS': '1', **environment,
                       'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'tests/online')]),
                       'PATH': os.pathsep.join([str(Path(sys.executable).parent),
                                                os.environ['PATH']])}
        process = subprocess.Popen(
            ['bash', str(ROOT / 'tools/dist_train.sh'), str(config), '2', '--work-dir', str(work),
             '--method', 'pcl', '--data', 'cifar10', '--data-root', str(tmp_path / 'data'),
             '--members', 'resnet8,wrn_16_1,resnet14', *args],
            cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        processes.append(process)
        return process

    yield run
    for process in processes:
        _kill(process)


def _kill(process):
    for pid in [*_descendants(process.pid), process.pid] if process.poll() is None else []:
        os.kill(pid, signal.SIGKILL)
    process.wait()


def _finish(process):
    out, _ = process.communicate(timeout=180)
    assert process.returncode == 0, out[-5000:]


@pytest.mark.dist
@pytest.mark.matrix
def test_killed_and_resumed_it_ends_as_an_undisturbed_run(start, tmp_path):
    _finish(start(tmp_path / 'whole'))
    process = start(tmp_path / 'part', PAUSE='1')
    deadline = time.monotonic() + 120
    while len(list((tmp_path / 'part').glob('paused_*'))) < 2:
        assert process.poll() is None, process.stdout.read()[-5000:]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    _kill(process)
    assert not (tmp_path / 'part/epoch_2.pth').exists()
    _finish(start(tmp_path / 'part', '--resume'))

    whole, part = (load_checkpoint_safely(tmp_path / name / 'epoch_3.pth')
                   for name in ('whole', 'part'))
    assert {key.split('.')[1] for key in whole['state_dict']} == set(NAMES)
    for key in ('state_dict', 'distillation'):
        assert_equal(whole.get(key, {}), part.get(key, {}))
    first = load_checkpoint_safely(tmp_path / 'whole/epoch_1.pth')['state_dict']
    assert not torch.equal(first['members.resnet8_1.head.fc.weight'],
                           whole['state_dict']['members.resnet8_1.head.fc.weight'])
    accuracies = [json.loads((tmp_path / name / 'accuracy.json').read_text())
                  for name in ('whole', 'part')]
    assert accuracies[0] == accuracies[1]
    assert {f'accuracy/{name}/top1' for name in NAMES} < accuracies[0]['3'].keys()
    for name in NAMES + tuple(f'{name}.mean' for name in NAMES):
        one, two = (load_checkpoint_safely(tmp_path / folder / f'{name}.pth')
                    for folder in ('whole', 'part'))
        assert one['meta']['epoch'] == 3
        assert_equal(one['state_dict'], two['state_dict'])
