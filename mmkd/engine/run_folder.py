"""What lies in the folder of a run, under which names, and which epoch was its best.

::

    config.py        the whole config: `mmkd train RUN/config.py` trains it again
    results.csv      a row for every epoch
    best.pth         the student after the epoch that validation liked best
    last.pth         the student after the last epoch
    check.json       what was found before the first epoch of a distillation
    environment.txt  versions and devices
    train.log        everything that was said
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmkd.config_files import RUN_CONFIG as CONFIG
from mmkd.errors import UserError
from mmkd.moved_names import moved_names

__all__ = ['BEST', 'CHECK', 'CONFIG', 'ENVIRONMENT', 'LAST', 'LOG', 'RESULTS', 'is_better',
           'kept_weights', 'main_metric', 'run_files']

__getattr__ = moved_names(__name__, link_atomically='mmkd.files')

BEST, LAST = 'best.pth', 'last.pth'
ENVIRONMENT, LOG = 'environment.txt', 'train.log'
RESULTS, CHECK = 'results.csv', 'check.json'
LESS_IS_BETTER = ('loss', 'error')


def kept_weights(folder: str | Path) -> Path:
    """Return a run's ``best.pth``, or else its ``last.pth``.

    Raises:
        UserError: it has neither.
    """
    for name in (BEST, LAST):
        if (path := Path(folder, name)).is_file():
            return path
    raise UserError(f"'{folder}' has neither {BEST} nor {LAST}: no checkpoint was saved there")


def run_files(run: str | Path) -> tuple[str, str]:
    """Return config and checkpoint of a run, named by its folder or by one of its checkpoints.

    Raises:
        UserError: the run has no checkpoint or no ``config.py``.
    """
    checkpoint = kept_weights(run) if Path(run).is_dir() else Path(run)
    if checkpoint.suffix == '.py':
        raise UserError(f"'{run}' is a config: give its checkpoint, too, or the folder of a run "
                        'in place of both')
    if not checkpoint.is_file():
        raise UserError(f"'{run}' is neither the folder of a run nor one of its checkpoints: "
                        'correct the path, or give a config and a checkpoint')
    config = checkpoint.with_name(CONFIG)
    if not config.is_file():
        raise UserError(f"there is no {CONFIG} beside '{checkpoint}', so its model is not known: "
                        'give a config and a checkpoint')
    return str(config), str(checkpoint)


def main_metric(metrics: Mapping[str, Any] | None) -> tuple[str, float] | None:
    """Return name and value of the metric that judges a run: the first; None if it is no number."""
    for name, value in (metrics or {}).items():
        try:
            return name, float(value)  # NumPy's own numbers would not be loaded again
        except (TypeError, ValueError):
            return None
    return None


def is_better(name: str, value: float, than: float) -> bool:
    """Tell whether more of a metric is better, or less where its name says loss or error.

    Everything is better than NaN.
    """
    if math.isnan(than):
        return True
    less = any(word in name.lower() for word in LESS_IS_BETTER)
    return value < than if less else value > than
