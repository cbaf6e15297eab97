"""The environment report, and memory that a process keeps."""

import platform
import subprocess
import sys

import cv2
import pytest
import torch

import mmkd
from mmkd.engine import environment
from mmkd.engine.environment import environment_report


def test_says_what_a_bug_report_needs():
    items = dict(line.split('  ', 1) for line in environment_report().splitlines())
    items = {name: value.strip() for name, value in items.items()}
    assert items['python'] == platform.python_version()
    assert items['torch'] == torch.__version__
    assert items['mmkd'].startswith(mmkd.__version__)
    # The package's version has a part more.
    assert any(value.startswith(cv2.__version__) for name, value in items.items()
               if name.startswith('opencv-python'))
    assert 'CPU' in items['devices']
    assert items['mmcv operators'].split()[0] in ('compiled', 'PyTorch')


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='looks at cores of Linux')
@pytest.mark.parametrize('busy, given, own, left', [
    (0.4, None, 6, 4), (2.0, None, 6, 4), (3.0, None, 6, 3), (9.0, None, 6, 1), (9.0, '4', 6, 4),
    (9.0, None, 4, 4)])  # of a container with 4 of 6 cores
def test_threads_leave_busy_cores(monkeypatch, busy, given, own, left):
    monkeypatch.setattr(environment, '_busy_threads', lambda: busy)
    monkeypatch.setattr(environment.os, 'cpu_count', lambda: 6)
    monkeypatch.setattr(environment.os, 'sched_getaffinity', lambda process: set(range(own)))
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    if given is not None:
        monkeypatch.setenv('OMP_NUM_THREADS', given)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        environment.leave_busy_cores()
        assert torch.get_num_threads() == left
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='looks into /proc')
def test_a_busy_program_is_seen():
    spinning = [subprocess.Popen([sys.executable, '-c', 'while True: pass']) for _ in range(3)]
    try:
        assert environment._busy_threads() >= 3
    finally:
        for one in spinning:
            one.kill()
            one.wait()


# Fills 64 MB and frees them, again and again: how many pages does the system hand out anew?
PAGES = """
import resource, torch
from mmkd.engine.environment import keep_freed_memory
if {keep}:
    keep_freed_memory()
pages = []
for _ in range(10):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2 ** 24)
    pages.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(pages))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='glibc alone has these settings')
@pytest.mark.parametrize('keep, setting, anew', [
    (False, {}, True), (True, {}, False), (True, {'MALLOC_MMAP_THRESHOLD_': '4096'}, True)])
def test_freed_memory_is_kept(keep, setting, anew, monkeypatch):
    for name in ('MALLOC_MMAP_MAX_', 'MALLOC_TRIM_THRESHOLD_', 'MALLOC_TOP_PAD_'):
        monkeypatch.delenv(name, raising=False)
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    done = subprocess.run([sys.executable, '-c', PAGES.format(keep=keep)], capture_output=True,
                          text=True, check=True)
    # 64 MB are 16 384 pages of 4 KiB.
    assert (int(done.stdout) > 10000) is anew
