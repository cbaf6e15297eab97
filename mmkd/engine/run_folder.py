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
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ['BEST', 'CHECK', 'CONFIG', 'ENVIRONMENT', 'LAST', 'LOG', 'RESULTS', 'is_better',
           'link_atomically', 'main_metric']

BEST, LAST = 'best.pth', 'last.pth'
CONFIG, ENVIRONMENT, LOG = 'config.py', 'environment.txt', 'train.log'
RESULTS, CHECK = 'results.csv', 'check.json'
LESS_IS_BETTER = ('loss', 'error')


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


def link_atomically(source: str | Path, target: Path) -> None:
    """Let ``target`` be the file ``source``, by a hard link or, where there is none, a copy.

    Raises:
        OSError: it cannot be made; ``target`` is as it was.
    """
    temporary = target.with_name(target.name + '.tmp')
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:  # another disk, or one without hard links
        temporary.write_bytes(Path(source).read_bytes())
    try:
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
