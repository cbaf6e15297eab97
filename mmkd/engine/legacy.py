"""Configs and environment variables as they were in version 0.1.0, for one release."""

import logging
import os
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from mmkd.config_files import ARGUMENT
from mmkd.errors import UserError

__all__ = ['modernise', 'old_variables', 'tell_of_old_variables']

# By the type of a hook of old: the key of its term, the term, and its place in distill_weights.
TERMS: dict[str, tuple[str, dict[str, Any], int | None]] = {
    'DistillHook': ('distill', dict(type='Term', weight=1.0), None),
    'SelfDistillHook': ('self_distill', dict(type='SelfTerm', weight=1.0), None),
    'HeatmapDistillHook': ('heatmap', dict(type='CenterNetTerm', map='heatmap',
                                           loss=dict(type='SoftFocalLoss')), 0),
    'WidthHeightDistillHook': ('wh', dict(type='CenterNetTerm', map='wh',
                                          loss=dict(type='WidthHeightLoss')), 1),
    'OffsetDistillHook': ('offset', dict(type='CenterNetTerm', map='offset',
                                         loss=dict(type='OffsetLoss')), 2),
    'FeatureDistillHook': ('feature', dict(type='FeatureTerm', loss=dict(type='PKDLoss')), 3),
    'AttentionDistillHook': ('attention', dict(type='FeatureTerm', joint='each',
                                               loss=dict(type='AttentionLoss')), 3),
}
SETUP = 'TeacherHook'


def modernise(cfg: Config) -> None:
    """Turn distillation hooks of old in ``cfg.custom_hooks`` into a DistillationHook and its terms.

    Nothing is done to a config that has none of them. Their terms replace ``cfg.terms``; weights
    that stood in ``distill_weights`` by position stand there by name afterwards.

    Raises:
        UserError: two of them have the same name.
    """
    hooks = [hook for hook in cfg.get('custom_hooks') or [] if isinstance(hook, Mapping)]
    old = [hook for hook in hooks if hook.get('type') in (SETUP, *TERMS)]
    if not old:
        return
    weights, terms, by_name = cfg.get('distill_weights'), {}, {}
    for hook in old:
        if hook['type'] != SETUP:
            name, term, weight = _term(hook, weights)
            if name in terms:
                raise UserError(f"two distillation hooks are called '{name}': give each its own "
                                '`name`')
            terms[name] = term
            if weight is not None:
                by_name[name] = weight
    setup = next((hook for hook in old if hook['type'] == SETUP), {})
    cfg.custom_hooks = [dict(setup, type='DistillationHook'),
                        *(hook for hook in cfg.custom_hooks if hook not in old)]
    if isinstance(weights, (list, tuple)):
        # The terms with a weight of their own must not meet another one.
        cfg.distill_weights = by_name | {name: term.pop('weight') for name, term in terms.items()
                                         if 'weight' in term}
    cfg.terms = terms
    cache = cfg.get('teacher_cache')
    if cache and cache.get('terms'):
        cache['terms'] = [name if name in terms else name.removeprefix('distill_')
                          for name in cache['terms']]
    print_log('TeacherHook, DistillHook and their kin are called DistillationHook and `terms` now, '
              'and will be gone in the next version; this config was read as\n'
              f'terms = {terms!r}\ndistill_weights = {cfg.get("distill_weights")!r}\n'
              f'custom_hooks = {cfg.custom_hooks!r}', 'current', level=30)


def _term(hook: Mapping[str, Any], weights: Any) -> tuple[str, dict[str, Any], Any]:
    key, term, place = TERMS[hook['type']]
    own = {name: value for name, value in hook.items()
           if name not in ('type', 'name', 'temperature')}
    if own.get('weight', 0) is None:
        del own['weight']
    term = {**term, **own}
    if 'temperature' in hook:  # of the attention
        term['loss'] = dict(term['loss'], temperature=hook['temperature'])
    for side in ('tap', 'teacher_tap'):
        if term.get(side) == 'bbox_head:input':
            term[side] = 'bbox_head:input:-1'
    weight = None
    if place is not None and 'weight' not in term and isinstance(weights, (list, tuple)):
        weight = weights[place] if place < len(weights) else None
    return (hook.get('name') or key), term, weight


VARIABLES = ('DATA', 'METHOD', 'STUDENT', 'TEACHER', 'MEMBERS')


def old_variables(arguments: Mapping[str, str]) -> dict[str, str]:
    """Return the arguments of a config, and what the environment has in place of absent ones.

    Raises:
        UserError: one checkpoint is to serve for several teachers.
    """
    found = {name.lower(): os.environ[name] for name in VARIABLES if name in os.environ}
    if checkpoint := os.environ.get('TEACHER_CHECKPOINT'):
        name = found.get('teacher', 'resnet32x4')
        if ',' in name and 'teacher' not in arguments:
            raise UserError('TEACHER_CHECKPOINT is the file of one teacher: for several give '
                            '--teacher NAME=FILE for each')
        found['teacher'] = f'{name}={checkpoint}'
    return found | dict(arguments)


def tell_of_old_variables(cfg: Config, arguments: Mapping[str, str]) -> None:
    """Warn if the environment chose something in a config that was read.

    Args:
        cfg: as :func:`~mmkd.config_files.read_config` returned it.
        arguments: what was chosen otherwise.
    """
    used = {name.removeprefix(ARGUMENT).lower(): value for name, value in cfg.env_variables.items()
            if name.startswith(ARGUMENT) or name == 'DATA_ROOT'}
    old = {name: value for name, value in used.items() if name not in arguments}
    if old:
        options = ' '.join(f"--{name.replace('_', '-')} {value}" for name, value in old.items())
        print_log(f"config '{cfg.filename}': {', '.join(map(str.upper, old))} of the environment "
                  f'will not be read by the next release, give {options}', 'current',
                  logging.WARNING)
