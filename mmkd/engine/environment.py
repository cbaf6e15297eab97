"""What a run runs on: ``python -m mmkd.engine.environment``."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import mmkd
from mmkd.ops.extension import has_compiled_extension

__all__ = ['environment_report']

# Either distribution may provide mmengine, mmcv and mmdet.
DISTRIBUTIONS = ('torch', 'onedl-mmengine', 'mmengine', 'onedl-mmcv', 'mmcv', 'onedl-mmdetection',
                 'mmdet', 'numpy', 'opencv-python', 'opencv-python-headless')


def environment_report() -> str:
    """Return versions, devices and the source of mmcv's operators, one item a line."""
    items = {
        'mmkd': f'{mmkd.__version__}{_commit()}',
        'python': platform.python_version(),
        'platform': platform.platform(),
        **_versions(),
        'devices': _devices(),
        'mmcv operators': 'compiled' if has_compiled_extension() else
        'PyTorch fallback (this mmcv has no compiled extension)',
    }
    width = max(map(len, items))
    return '\n'.join(f'{name:<{width}}  {value}' for name, value in items.items())


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


def _commit() -> str:
    """Return the commit of the checkout that mmkd is imported from, or ''."""
    root = Path(mmkd.__file__).parents[1]
    if not (root / '.git').exists():
        return ''
    try:
        described = subprocess.run(
            ['git', 'describe', '--always', '--dirty', '--abbrev=10'], cwd=root,
            capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ''
    return f' (commit {described.stdout.strip()})' if described.returncode == 0 else ''


if __name__ == '__main__':
    print(environment_report())
