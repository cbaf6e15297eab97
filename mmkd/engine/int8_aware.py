"""The entry ``int8_aware`` of a config.

::

    int8_aware = True                 # fine-tune a student (load_from), or the last fifth of a run
    int8_aware = dict(begin=0.8)      # from which share of the iterations on
    int8_aware = dict(float_self=True)  # its teachers and, besides, the student as it was in float
"""

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from mmkd.engine.distil import family_of, terms_of
from mmkd.errors import UserError, did_you_mean
from mmkd.registry import TERMS

__all__ = ['FLOAT_SELF', 'settle_int8_aware', 'use_int8_aware']

FLOAT_SELF = 'float_self'
LATE = 0.8
KEYS = ('begin', 'float_self')


def settle_int8_aware(cfg: Config) -> None:
    """Replace what the config leaves open of ``int8_aware`` by what it means.

    It begins at once if the run starts from a student's weights, else at 0.8 of the iterations. The
    student's float self teaches where it begins at once.

    Raises:
        UserError: an entry is not known or out of range.
    """
    given = cfg.get('int8_aware')
    if not given:
        cfg.pop('int8_aware', None)
        return
    if given is not True and not isinstance(given, Mapping):
        raise UserError(f'int8_aware is {given!r}: give True, or dict(begin=0.8)')
    options = {} if given is True else dict(given)
    for name in options.keys() - set(KEYS):
        raise UserError(f"int8_aware has no '{name}': it has {', '.join(KEYS)}."
                        f'{did_you_mean(name, KEYS)}')
    begin = options.setdefault('begin', 0.0 if cfg.get('load_from') else LATE)
    if isinstance(begin, bool) or not isinstance(begin, (int, float)) or not 0 <= begin < 1:
        raise UserError(f'int8_aware.begin is {begin!r}: give the share of the iterations after '
                        'which it begins, from 0 to below 1, such as 0.8')
    options.setdefault('float_self', begin == 0)
    if not isinstance(options['float_self'], bool):
        raise UserError(f"int8_aware.float_self is {options['float_self']!r}: give True or False")
    if cfg.get('compile'):
        raise UserError('int8_aware and compile exclude one another, since a compiled student is '
                        'not rounded: take one of them out')
    cfg.int8_aware = options


def use_int8_aware(cfg: Config) -> None:
    """Let the training of a config do what its ``int8_aware`` says.

    Args:
        cfg: with ``int8_aware`` from :func:`settle_int8_aware`; changed.
    """
    options = cfg.get('int8_aware')
    if not options:
        return
    hooks = [*(cfg.get('custom_hooks') or []),
             dict(type='Int8AwareHook', begin=options['begin'])]
    if options['float_self'] and family_of(cfg.model) != 'classifier':
        _add_float_self(cfg)
        if not any(hook['type'] == 'DistillationHook' for hook in hooks):
            hooks.append(dict(type='DistillationHook'))
    cfg.custom_hooks = hooks


def _add_float_self(cfg: Config) -> None:
    """Add the student's float self to the teachers, with terms of the default method."""
    method = 'joint' if family_of(cfg.model) == 'centernet' else 'pkd'
    teachers = dict(cfg.get('teachers') or {})
    terms: dict[str, Any] = {name: dict(term) for name, term in (cfg.get('terms') or {}).items()}
    weights = cfg.get('distill_weights') or {}
    if not isinstance(weights, Mapping):
        weights = dict(zip(terms, weights, strict=False))
    for term in terms.values():
        if TERMS.get(term.get('type', 'Term')).needs_teachers:
            term.setdefault('teachers', list(teachers))
    for name, term in terms_of(method, cfg.model, {FLOAT_SELF: cfg.model}):
        terms[f'{FLOAT_SELF}_{name}'] = term | dict(teachers=[FLOAT_SELF])
    cfg.teachers = teachers | {FLOAT_SELF: dict(float_self=True)}
    cfg.terms = terms
    cfg.distill_weights = dict(weights)
