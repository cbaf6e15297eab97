"""Write anew what is kept: `python -m tests.kept losses`, `python -m tests.kept checkpoints`."""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `kept`, as in conftest.py

import torch
from mmengine.registry import DefaultScope

from mmkd.engine import launch

RELEASE = '0.2.0'


def main():
    """Parse the arguments and write."""
    parser = argparse.ArgumentParser(prog='python -m tests.kept', description=__doc__)
    parser.add_argument('what', choices=['losses', 'checkpoints'])
    args = parser.parse_args()
    torch.set_num_threads(1)
    with (DefaultScope.overwrite_default_scope('mmkd'),
          tempfile.TemporaryDirectory() as temporary):
        from kept import recipes
        folder = Path(temporary)
        if args.what == 'losses':
            recipes.LOSSES.write_text(recipes.written(recipes.first_losses(folder)))
            return
        kept, metrics = recipes.HERE / RELEASE, {}
        kept.mkdir(exist_ok=True)
        for name, cfg in recipes.kept_runs(folder).items():
            launch.train(cfg.copy())
            shutil.copy(Path(cfg.work_dir, 'epoch_1.pth'), kept / f'{name}.pth')
            config = Path(cfg.work_dir, 'config.py').read_text()
            (kept / f'{name}.py').write_text(config.replace(str(folder), 'work_dirs'))
            metrics[name] = launch.test(cfg, str(kept / f'{name}.pth'))
        (kept / 'metrics.json').write_text(json.dumps(metrics, indent=1) + '\n')


if __name__ == '__main__':
    main()
