"""What a command lets one choose beside a config: data, networks, teachers and a method.

Some configs leave these open: a variable in them, such as ``{{$MMKD_STUDENT:resnet8x4}}``, has the
value of the option ``--student``, or its default ``resnet8x4``. That is how
``configs/classification/distill.py`` has a data set, a method, a student and a teacher. What was
chosen is written out in the config that a run leaves in its work directory.

A config of a detector leaves nothing open, and the same options change it: ``--data`` is a folder
(:mod:`mmkd.engine.data_root`), ``--teacher`` another detector (:mod:`mmkd.engine.distil`),
``--backbone`` a network of timm (:mod:`mmkd.engine.backbone`).
"""

import argparse
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from mmkd.config_files import ARGUMENT
from mmkd.engine.arguments import CHOICES, NAMED
from mmkd.engine.backbone import use_backbone
from mmkd.engine.config import load_config
from mmkd.engine.data_root import move_data, use_data
from mmkd.engine.distil import distil
from mmkd.errors import UserError

__all__ = ['chosen_config']

OPEN = dict(student='the configs classifier and selfdistill', members='the config online',
            data='the configs classifier, selfdistill and online, or a detector',
            backbone='detectors')


def chosen_config(args: argparse.Namespace) -> Config:
    """Return the config that ``args`` name, with what they choose.

    Args:
        args: ``config``, and any of :data:`~mmkd.engine.arguments.CHOICES`.

    Raises:
        UserError: see :mod:`mmkd.engine.config`, or a choice is not for this config.
    """
    given: dict[str, Any] = {name: getattr(args, name, None) for name in CHOICES}
    arguments = {name: value if isinstance(value, str) else ','.join(value)
                 for name in NAMED if (value := given[name])}
    for name, value in arguments.items():
        if any(sign in value for sign in '\'"\\\n{}'):
            raise UserError(f'--{name} {value!r} has a quote, bracket or backslash in it, which no '
                            'config can hold: give another name')
    cfg = load_config(args.config, arguments=arguments)
    taken = {name for name in arguments if f'{ARGUMENT}{name.upper()}' in cfg.env_variables}
    if taken:
        _check_open(args.config, given, taken)
    else:
        _change(cfg, args.config, given)
    if given['data_root']:
        move_data(cfg, given['data_root'])
    return cfg


def _check_open(config: str, given: dict[str, Any], taken: set[str]) -> None:
    for name in (*NAMED, 'classes', 'backbone'):
        if given[name] and name not in taken:
            raise UserError(f"--{name} was given, but the config '{config}' has no such choice: "
                            'leave it out')
    if given['teacher'] and given['method'] in (None, 'ce'):
        raise UserError('--teacher was given without --method and would do nothing: add a method, '
                        'such as --method kd')


def _change(cfg: Config, config: str, given: dict[str, Any]) -> None:
    """Change a config that leaves nothing open; one of a detector, as a rule."""
    classifies = (cfg.get('model') or {}).get('type') in ('Classifier', 'Cohort')
    for name in ('student', 'members', *(['data', 'backbone'] if classifies else [])):
        if given[name]:
            raise UserError(f"--{name} is for {OPEN[name]}, and not for '{config}': take it out")
    for name, needed in (('method', 'teacher'), ('classes', 'data')):
        if given[name] is not None and not given[needed]:
            raise UserError(f'--{name} was given without --{needed} and would do nothing: add '
                            f'--{needed}, or take it out')
    if given['data'] and given['data_root']:
        raise UserError('--data and --data-root both say where the data lie: give one of them')
    if given['backbone']:
        use_backbone(cfg, given['backbone'])
    if given['data']:
        use_data(cfg, given['data'], given['classes'].split(',') if given['classes'] else None)
    if given['teacher']:
        distil(cfg, given['teacher'], given['method'].split(',') if given['method'] else None)
        print_log('distillation, as --dump writes it down:\n'
                  f'teachers = {cfg.teachers}\nterms = {cfg.terms}\n'
                  f'distill_weights = {cfg.distill_weights}', 'current')
