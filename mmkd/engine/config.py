"""Read a config and find its mistakes before anything is built from it."""

import difflib
import inspect
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import FUNCTIONS, DefaultScope, Registry
from mmengine.runner import Runner

from mmkd import registry
from mmkd.config_files import config_path, first_line, neighbours, read_config, reading
from mmkd.distillation.branch import CONSTRUCTOR_FACTS
from mmkd.engine.config_values import (
    check_kinds,
    check_loaders,
    check_option,
    check_visualizer,
    with_loop,
)
from mmkd.engine.guard import refuse_code_in_files
from mmkd.engine.legacy import modernise, old_variables, tell_of_old_variables
from mmkd.engine.student_options import OPTIONS
from mmkd.errors import UserError, did_you_mean

__all__ = ['classes_of', 'counted_classes', 'load_config', 'override', 'validate_config']

ENTRIES = frozenset(inspect.signature(Runner.__init__).parameters).union(
    OPTIONS, ['inherit', 'int8_aware', 'unlabelled'])
DATA = (registry.DATASETS, registry.TRANSFORMS, registry.DATA_SAMPLERS, FUNCTIONS)
NETWORK = (registry.MODELS, registry.TASK_UTILS, registry.WEIGHT_INITIALIZERS)
SECTIONS: dict[str, tuple[Registry, ...]] = {
    'model': NETWORK,
    'teachers': NETWORK,
    'terms': (registry.TERMS, *NETWORK),
    'train_dataloader': DATA,
    'val_dataloader': DATA,
    'test_dataloader': DATA,
    'val_evaluator': (registry.METRICS, registry.EVALUATOR),
    'test_evaluator': (registry.METRICS, registry.EVALUATOR),
    'default_hooks': (registry.HOOKS, *NETWORK),
    'custom_hooks': (registry.HOOKS, registry.TERMS, registry.TRANSFORMS, *NETWORK),
    'optim_wrapper': (registry.OPTIM_WRAPPERS, registry.OPTIMIZERS,
                      registry.OPTIM_WRAPPER_CONSTRUCTORS),
    'param_scheduler': (registry.PARAM_SCHEDULERS,),
    'visualizer': (registry.VISUALIZERS, registry.VISBACKENDS),
}
# Their `type` is no name of a registry: mmcv's operators, and what belongs to Albumentations.
NOT_REGISTERED = {'nms', 'dqs_cfg', 'roi_layer', 'transforms of Albu', 'bbox_params of Albu'}


def load_config(path: str | Path, options: Mapping[str, Any] | None = None,
                arguments: Mapping[str, str] | None = None) -> Config:
    """Read the config at ``path`` and override entries of it.

    From then on no file that the config names can run code, see :mod:`mmkd.engine.guard`.

    Args:
        path: of a Python config, or its name (:func:`mmkd.config_files.config_path`).
        options: dotted key to value, as ``--cfg-options`` gives them.
        arguments: what to choose of what the config leaves open (:mod:`mmkd.engine.choices`).

    Raises:
        UserError: the file is missing or broken, or an option fits nowhere.
    """
    refuse_code_in_files()
    path = config_path(path)
    if not os.path.isfile(path):
        raise UserError(f"config '{path}' does not exist.{neighbours(path)}")
    with reading(path):
        config = read_config(path, old_variables(arguments or {}))
    tell_of_old_variables(config, arguments or {})
    if config.get('default_scope') == 'mmdet':
        config.default_scope = 'mmkd'  # whose registries know MMDetection's names and mmkd's
    override(config, options)
    return config


def override(config: Config, options: Mapping[str, Any] | None) -> None:
    """Change entries of a config.

    Args:
        config: changed.
        options: dotted key to value, as ``--cfg-options`` gives them.

    Raises:
        UserError: an option fits nowhere.
    """
    for option in options or {}:
        _check_entry(option.partition('.')[0], ENTRIES | config.keys(), config)
        if option.startswith('vis_backends'):  # the visualizer has read it long since
            raise UserError(f'--cfg-options {option} changes nothing: give visualizer.{option}')
        check_option(config, option, options[option])
    try:
        config.merge_from_dict(dict(options or {}))
    except (LookupError, TypeError, ValueError, AttributeError, AssertionError) as error:
        given = ' '.join(f'{name}={value}' for name, value in options.items())
        raise UserError(f"--cfg-options {given} do not fit config '{config.filename}': "
                        f'{first_line(error)}') from error
    check_kinds(config)
    modernise(config)


def validate_config(cfg: Config) -> None:
    """Check that what ``cfg`` names exists and fits together.

    Raises:
        UserError: there is no model; an entry, a ``type`` or an argument of a hook or loop is
            misspelt; a value fits nothing (:mod:`mmkd.engine.config_values`); the head's
            ``num_classes`` is not the number of the data's classes.
    """
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmkd')):
        for name in cfg.keys() - ENTRIES:
            _check_entry(name, ENTRIES - cfg.keys(), cfg)
        if not isinstance(cfg.get('model'), Mapping) or 'type' not in cfg.model:
            raise UserError(f"config '{cfg.filename}' has no student: define `model = "
                            "dict(type='CenterNet', ...)` in it or in its _base_")
        for section, registries in SECTIONS.items():
            for place, node in _typed(cfg.get(section), section):
                _check_type(place, node['type'], registries)
        check_loaders(cfg)
        check_visualizer(cfg)
        for name in ('train_cfg', 'val_cfg', 'test_cfg'):
            _check_arguments(name, with_loop(cfg.get(name)), registry.LOOPS)
        for name, hook in (cfg.get('default_hooks') or {}).items():
            _check_arguments(f'default_hooks.{name}', hook)
        for i, hook in enumerate(cfg.get('custom_hooks') or ()):
            _check_arguments(f'custom_hooks[{i}]', hook)
            if isinstance(hook, Mapping) and hook.get('type') == 'DistillationHook':
                _check_terms(f'custom_hooks[{i}].terms', hook.get('terms'))
        _check_terms('terms', cfg.get('terms'))
        _check_classes(cfg)


def _check_entry(name: str, meant: Iterable[str], cfg: Config) -> None:
    # mmengine ignores a top-level entry that it does not know, and with it all that is in it.
    close = difflib.get_close_matches(name, meant, n=1, cutoff=0.9)
    if close and close[0] != name:
        raise UserError(f"unknown entry '{name}' of config '{cfg.filename}': it would be ignored. "
                        f"Did you mean '{close[0]}'?")


def _typed(node: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every dict below ``node`` with a ``type`` that is a name, and where it stands."""
    if isinstance(node, Mapping):
        if isinstance(node.get('type'), str):
            yield place, node
        for key, value in node.items():
            names = {key, f"{key} of {node.get('type')}"}
            if not names & NOT_REGISTERED:
                yield from _typed(value, f'{place}.{key}')
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for i, value in enumerate(node):
            yield from _typed(value, f'{place}[{i}]')


def _find(name: str, registries: Sequence[Registry]) -> Any:
    for one in registries:
        try:
            found = one.get(name)
        except UserError:
            raise
        # How mmengine says that there is none, and where a scope before a dot is none.
        except (RuntimeError, ImportError, TypeError, ValueError):
            continue
        if found is not None:
            return found
    return None


def _check_type(place: str, name: str, registries: Sequence[Registry]) -> None:
    if _find(name, registries) is not None:
        return
    known: set[str] = set()
    for one in registries:
        while one is not None:
            known.update(one.module_dict)
            one = one.parent
    hint = did_you_mean(name, known) or ' Correct the name, or import its module by custom_imports'
    raise UserError(f"unknown type '{name}' at {place}.{hint}")


def _check_terms(place: str, terms: Any) -> None:
    if terms is not None and not isinstance(terms, Mapping):
        raise UserError(f'{place} is {terms!r}: give every term a name, '
                        'dict(NAME=dict(tap=..., loss=dict(type=...)))')
    for name, term in (terms or {}).items():
        if not isinstance(term, Mapping):
            raise UserError(f'{place}.{name} is {term!r}: describe a term, '
                            'dict(tap=..., loss=dict(type=...))')
        _check_part(f'{place}.{name}', {'type': 'Term', **term}, registry.TERMS)
        for part in ('loss', 'connector'):
            if term.get(part) is not None:
                _check_part(f'{place}.{name}.{part}', term[part], registry.MODELS)


def _check_part(place: str, entry: Any, kind: Registry) -> None:
    if not isinstance(entry, Mapping) or not isinstance(entry.get('type'), str):
        raise UserError(f"{place} is {entry!r}: write dict(type='NAME', ...)")
    _check_arguments(place, entry, kind)
    given = {*entry, *CONSTRUCTOR_FACTS}
    missing = [name for name in _needed(_find(entry['type'], [kind])) if name not in given]
    if missing:
        raise UserError(f"{entry['type']} at {place} lacks the argument '{missing[0]}'")


def _needed(cls: Any) -> list[str]:
    if not inspect.isclass(cls):
        return []
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    return [p.name for p in parameters
            if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def _check_arguments(place: str, entry: Any, kind: Registry = registry.HOOKS) -> None:
    if not isinstance(entry, Mapping) or not isinstance(entry.get('type'), str):
        return
    cls = _find(entry['type'], [kind])
    if not inspect.isclass(cls):
        return
    known, takes_any = _arguments(cls)
    for name in entry:
        hint = did_you_mean(name, known)
        # mmengine's CheckpointHook swallows what it does not know.
        if name not in known | {'type', '_scope_'} and (hint or not takes_any):
            hint = hint or f' It takes: {", ".join(sorted(known))}'
            raise UserError(f"unexpected argument '{name}' of {entry['type']} at {place}.{hint}")


def _arguments(cls: type) -> tuple[set[str], bool]:
    """Return what ``cls(...)`` takes by name, and whether it takes any name besides.

    A class with ``**kwargs`` passes them to its base.
    """
    known, takes_any = set(), False
    if issubclass(cls, Hook):
        known.add('priority')  # mmengine itself reads it
    for base in cls.__mro__[:-1]:
        if '__init__' in vars(base):
            parameters = list(inspect.signature(base.__init__).parameters.values())[1:]
            known.update(p.name for p in parameters
                         if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
            takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
            if not takes_any:
                break
    return known, takes_any


def _check_classes(cfg: Config) -> None:
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        for classes in classes_of((cfg.get(loader) or {}).get('dataset')):
            for place, count in counted_classes(cfg.model, 'model'):
                if count != len(classes):
                    raise UserError(
                        f'{place} is {count}, but {loader} has {len(classes)} classes '
                        f'({", ".join(classes[:20])}): make them agree')


def counted_classes(node: Any, place: str) -> Iterator[tuple[str, int]]:
    """Yield every number of the data's classes below a model's config, and where it stands.

    Proposals know no classes, and a denoising generator's follow from the head's.
    """
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key in ('num_classes', 'num_things_classes') and isinstance(value, int):
                yield f'{place}.{key}', value
            elif key not in ('rpn_head', 'backbone', 'train_cfg', 'test_cfg', 'dn_cfg'):
                yield from counted_classes(value, f'{place}.{key}')
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for i, value in enumerate(node):
            yield from counted_classes(value, f'{place}[{i}]')


def classes_of(dataset: Any) -> Iterator[Sequence[str]]:
    """Yield the class names that a data set's config has, or those that it wraps have."""
    if not isinstance(dataset, Mapping):
        return
    several = dataset.get('datasets')
    inner = [dataset.get('dataset'), *(several if isinstance(several, list | tuple) else ())]
    if any(inner):
        for one in inner:
            yield from classes_of(one)
        return
    own = getattr(_find(str(dataset.get('type')), [registry.DATASETS]), 'METAINFO', {})
    metainfo = dataset.get('metainfo') or own
    classes = metainfo.get('classes') if isinstance(metainfo, Mapping) else None
    if isinstance(classes, list | tuple) and all(isinstance(name, str) for name in classes):
        yield classes
