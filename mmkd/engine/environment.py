"""What a run runs on: ``python -m mmkd.engine.environment``; memory and threads on a CPU."""

import ctypes
import importlib.metadata
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path

from mmengine.logging import print_log

import mmkd
from mmkd.ops.extension import has_compiled_extension

__all__ = ['commit', 'environment_report', 'keep_freed_memory', 'leave_busy_cores']

# Either distribution may provide mmengine, mmcv and mmdet.
DISTRIBUTIONS = ('torch', 'onedl-mmengine', 'mmengine', 'onedl-mmcv', 'mmcv', 'onedl-mmdetection',
                 'mmdet', 'numpy', 'opencv-python', 'opencv-python-headless')


def environment_report() -> str:
    """Return versions, devices and the source of mmcv's operators, one item a line."""
    checkout = commit()
    items = {
        'mmkd': mmkd.__version__ + (f' (commit {checkout})' if checkout else ''),
        'python': platform.python_version(),
        'platform': platform.platform(),
        **_versions(),
        'devices': _devices(),
        'mmcv operators': 'compiled' if has_compiled_extension() else
        'PyTorch fallback (this mmcv has no compiled extension)',
    }
    width = max(map(len, items))
    return '\n'.join(f'{name:<{width}}  {value}' for name, value in items.items())


def keep_freed_memory() -> None:
    """Let the C library keep the memory of a step for the next one: for training on a CPU.

    By default glibc gives large blocks back to the system as soon as they are free, and the system
    clears every page again in the next step: a fifth to a third of a step. Here they stay with the
    process, as PyTorch's own allocator does on a GPU. Does nothing where the C library is another
    one, or where one of glibc's own ``MALLOC_...`` variables is set.
    """
    if any(name.startswith('MALLOC_') for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    # From malloc.h: M_MMAP_MAX, no block apart from the heap; M_TRIM_THRESHOLD, never shrink it;
    # M_TOP_PAD, let it grow in steps of 512 MiB.
    for parameter, value in ((-4, 0), (-1, -1), (-2, 2 ** 29)):
        mallopt(parameter, value)


def leave_busy_cores() -> None:
    """Compute with no more threads than there are cores that nobody uses: for training on a CPU.

    PyTorch takes a thread for each core and lets them wait for one another in every operation. One
    that has to share its core holds up all: on two busy cores two threads took ten times as long as
    one. What is busy is looked at once, on Linux, where ``OMP_NUM_THREADS`` does not say how many
    threads there shall be.
    """
    import torch
    if 'OMP_NUM_THREADS' in os.environ or not hasattr(os, 'sched_getaffinity'):
        return
    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    if len(os.sched_getaffinity(0)) < cores:
        return  # a part of the machine, as of a container: who is busy may be so elsewhere
    busy = min(cores, round(_busy_threads()))
    free = max(1, cores - busy)
    if busy < 1 or free >= threads:
        return
    torch.set_num_threads(free)
    print_log(f'other programs keep {busy} of {cores} cores busy: computing with {free} of '
              f'{threads} threads (OMP_NUM_THREADS={threads} before the command takes all)',
              'current')


def _busy_threads() -> float:
    """Return how many threads run or wait for a core, beside this one; 0 where nobody tells."""
    counts = []
    try:
        for _ in range(10):
            running = Path('/proc/loadavg').read_text().split()[3].partition('/')[0]
            counts.append(int(running) - 1)
            time.sleep(0.02)
    except (OSError, ValueError, IndexError):
        return 0.0
    return statistics.median(counts)


def _versions() -> dict[str, str]:
    versions = {}
    for name in DISTRIBUTIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _devices() -> str:
    import torch
    cpu = f'CPU ({torch.get_num_threads()} threads of {os.cpu_count()} cores)'
    gpus = [f'cuda:{i} {torch.cuda.get_device_name(i)}' for i in range(torch.cuda.device_count())]
    return ', '.join([cpu, *gpus])


def commit() -> str:
    """Return the commit of the checkout that mmkd is imported from, or '' for an installed mmkd."""
    root = Path(mmkd.__file__).parents[1]
    if not (root / '.git').exists():
        return ''
    try:
        described = subprocess.run(
            ['git', 'describe', '--always', '--dirty', '--abbrev=10'], cwd=root,
            capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ''
    return described.stdout.strip() if described.returncode == 0 else ''


if __name__ == '__main__':
    print(environment_report())
