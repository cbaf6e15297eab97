"""What a config says of teachers and terms, checked and built."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from torch import nn

from mmkd.distillation.distill_hook import DistillHook
from mmkd.distillation.student_teachers import MeanTeacher, PartnerTeacher
from mmkd.distillation.teachers import Teacher, build_teacher
from mmkd.errors import UserError

__all__ = ['active_terms', 'build_entry', 'checked_entries']


def build_entry(name: str, entry: Mapping[str, Any], student: nn.Module,
                device: torch.device) -> Teacher:
    """Build the teacher that an entry of ``teachers`` describes.

    Raises:
        UserError: its files or its options are wrong.
    """
    weight = entry.get('weight', 1.0)
    if 'ema' in entry:
        return MeanTeacher(name, student, entry['ema'], weight)
    if 'partners' in entry:
        return PartnerTeacher(name, student, weight)
    config = Config(dict(model=entry['model'])) if 'model' in entry else entry['config']
    return build_teacher(name, config, entry['checkpoint'], student.data_preprocessor, device,
                         weight, entry.get('compile', False), entry.get('precision'))


def checked_entries(entries: Any) -> Mapping[str, Mapping[str, Any]]:
    """Return the entries of ``teachers`` if their keys make sense.

    Raises:
        UserError: there are none, or an entry has other keys.
    """
    if not entries:
        raise UserError('TeacherHook has no teachers: put '
                        'teachers = dict(NAME=dict(config=..., checkpoint=...)) into the config')
    for name, entry in entries.items():
        keys = set(entry) - {'weight'}
        if 'checkpoint' in keys:
            keys -= {'compile', 'precision'}
        if keys not in ({'config', 'checkpoint'}, {'model', 'checkpoint'}, {'ema'}, {'partners'}):
            raise UserError(f"teacher '{name}' has the keys {sorted(entry)}: give `config` (or "
                            '`model`) and `checkpoint` (with `compile` or `precision`, if wanted), '
                            'or `ema`, or `partners`, and, if wanted, `weight`')
    return entries


def active_terms(hooks: Sequence[Hook], cfg: Config) -> list[DistillHook]:
    """Return the terms among a run's hooks whose weight is above 0.

    Raises:
        UserError: there is no term, one has no weight, or two have the same name.
    """
    terms = [hook for hook in hooks if isinstance(hook, DistillHook)]
    if not terms:
        raise UserError('TeacherHook has nothing to teach: add a distillation hook such as '
                        "dict(type='HeatmapDistillHook') to custom_hooks")
    for term in terms:
        term.resolve_weight(cfg.get('distill_weights'))
    active = [term for term in terms if term.weight > 0]
    names = [term.name for term in active]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UserError(f"two distillation hooks are called '{repeated[0]}': give one of them "
                        'another `name`')
    return active
