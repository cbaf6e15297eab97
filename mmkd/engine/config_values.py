"""Values of a config that would end in a traceback once a run is built."""

import importlib.util
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mmkd.errors import UserError

if TYPE_CHECKING:  # the parser of `mmkd train` imports this file
    from mmengine.config import Config

__all__ = ['TRACKERS', 'add_tracker', 'check_kinds', 'check_loaders', 'check_option',
           'check_visualizer', 'with_loop']

DICTS = ('train_dataloader', 'val_dataloader', 'test_dataloader', 'train_cfg', 'val_cfg',
         'test_cfg', 'default_hooks', 'teachers', 'teacher_cache', 'optim_wrapper')

NUMBERS = ('model', 'optim_wrapper', 'param_scheduler', 'train_cfg')
"""Sections in which a number stays one."""

TRACKERS = dict(tensorboard='TensorboardVisBackend', mlflow='MLflowVisBackend',
                wandb='WandbVisBackend')
"""mmengine's backends by the package that each needs, which is what `--log` takes."""


def check_kinds(cfg: 'Config') -> None:
    """Raise a UserError if an entry that has to be a dictionary or a list is something else."""
    for name in DICTS:
        if cfg.get(name) is not None and not isinstance(cfg[name], Mapping):
            raise UserError(f'{name} is {cfg[name]!r:.200}: write dict(...)')
    scope = cfg.get('default_scope', 'mmkd')
    if not isinstance(scope, str) or not scope.isidentifier():
        raise UserError(f"default_scope is {scope!r:.200}: write default_scope = 'mmkd'")
    schedulers = cfg.get('param_scheduler')
    if schedulers is not None and not isinstance(schedulers, Mapping | list | tuple):
        raise UserError(f'param_scheduler is {schedulers!r:.200}: write a list, '
                        "[dict(type='CosineAnnealingLR', ...)]")
    hooks = cfg.get('custom_hooks')
    if hooks is not None and not isinstance(hooks, list | tuple):
        raise UserError(f"custom_hooks is {hooks!r:.200}: write a list, [dict(type='...')]")
    if sum(isinstance(hook, Mapping) and hook.get('type') == 'DistillationHook'
           for hook in hooks or ()) > 1:
        raise UserError('custom_hooks has more than one DistillationHook: keep one, which takes '
                        'all teachers and terms')


def check_option(cfg: 'Config', option: str, value: Any) -> None:
    """Raise a UserError if ``--cfg-options`` would put a word where a part or a number stands.

    Args:
        cfg: as it is before.
        option: dotted key.
        value: what shall be there.
    """
    old: Any = cfg
    for key in option.split('.'):
        try:
            old = old[int(key)] if isinstance(old, list | tuple) else old[key]
        except (LookupError, TypeError, ValueError):
            return  # new, or something that `merge_from_dict` refuses
    if not isinstance(value, str):
        return
    if isinstance(old, Mapping):
        entry, example = ('type', value) if 'type' in old else (next(iter(old), 'name'), '...')
        raise UserError(f"{option} is a dict and cannot be '{value}': give an entry of it, as in "
                        f'--cfg-options {option}.{entry}={example}')
    if type(old) in (int, float) and option.split('.')[0] in NUMBERS:
        raise UserError(f"{option} is {old} and cannot be '{value}': give a number")


def check_loaders(cfg: 'Config') -> None:
    """Raise a UserError if a data loader could load nothing."""
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        for name, least in (('batch_size', 1), ('num_workers', 0)):
            value = (cfg.get(loader) or {}).get(name, least)
            if type(value) is not int or value < least:
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
