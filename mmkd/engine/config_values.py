"""Values of a config that would end in a traceback once a run is built."""

import importlib.util
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mmkd.errors import UserError

if TYPE_CHECKING:  # the parser of `mmkd train` imports this file
    from mmengine.config import Config

__all__ = ['TRACKERS', 'add_tracker', 'check_loaders', 'check_visualizer', 'with_loop']

TRACKERS = dict(tensorboard='TensorboardVisBackend', mlflow='MLflowVisBackend',
                wandb='WandbVisBackend')
"""mmengine's backends by the package that each needs, which is what `--log` takes."""


def check_loaders(cfg: 'Config') -> None:
    """Raise a UserError if a data loader could load nothing."""
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        for name, least in (('batch_size', 1), ('num_workers', 0)):
            value = (cfg.get(loader) or {}).get(name, least)
            if not isinstance(value, int) or value < least:
                raise UserError(f'{loader}.{name} is {value!r}: give a whole number of at least '
                                f'{least}')


def check_visualizer(cfg: 'Config') -> None:
    """Raise a UserError if logs could not be written where the config wants them."""
    visualizer = cfg.get('visualizer') or {}
    backends = visualizer.get('vis_backends') if isinstance(visualizer, Mapping) else None
    if backends is None:
        return
    if not isinstance(backends, list | tuple) or not all(
            isinstance(backend, Mapping) and 'type' in backend for backend in backends):
        raise UserError(f"visualizer.vis_backends is {backends!r}: write a list, "
                        "[dict(type='TensorboardVisBackend')], or change its first entry with "
                        '--cfg-options visualizer.vis_backends.0.type=TensorboardVisBackend')
    for package, backend in TRACKERS.items():
        if (any(one['type'] == backend for one in backends)
                and importlib.util.find_spec(package) is None):
            raise UserError(f'the logs shall go to {backend}, whose package is not installed: '
                            f'pip install {package}, or take it out')


def add_tracker(cfg: 'Config', name: str) -> None:
    """Let a run log to one of :data:`TRACKERS`, too.

    MLflow's database is where MLFLOW_TRACKING_URI says, else where ``mlflow ui`` looks for it: the
    files of each run, as mmengine would have them, MLflow 3 does not take any more.
    """
    cfg.setdefault('visualizer', dict(type='Visualizer'))
    visualizer = cfg.visualizer
    backends = visualizer.get('vis_backends') or [dict(type='LocalVisBackend')]
    if all(backend.get('type') != TRACKERS[name] for backend in backends):
        where = dict(tracking_uri=os.environ.get('MLFLOW_TRACKING_URI', 'sqlite:///mlflow.db'))
        backend = dict(type=TRACKERS[name]) | (where if name == 'mlflow' else {})
        visualizer['vis_backends'] = [*backends, backend]


def with_loop(entry: Any) -> Any:
    """Name the loop that mmengine takes by ``by_epoch``."""
    if not isinstance(entry, Mapping) or 'by_epoch' not in entry:
        return entry
    loop = 'EpochBasedTrainLoop' if entry['by_epoch'] else 'IterBasedTrainLoop'
    return {'type': loop} | {key: value for key, value in entry.items() if key != 'by_epoch'}
