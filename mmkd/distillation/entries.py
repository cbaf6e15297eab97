"""What a config says of teachers and terms, checked and built."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from mmkd.distillation.foundation import spelled_out
from mmkd.distillation.inference import best_precision
from mmkd.distillation.student_teachers import FloatTeacher, MeanTeacher, PartnerTeacher
from mmkd.distillation.teachers import Teacher, build_teacher
from mmkd.distillation.term import Term
from mmkd.errors import UserError, did_you_mean
from mmkd.registry import TERMS

__all__ = ['build_entry', 'built_terms', 'check_names', 'checked_entries']

OPTIONS = ('compile', 'precision', 'prefix', 'preprocessor', 'size', 'multiple_of')


def build_entry(name: str, entry: Mapping[str, Any], student: nn.Module,
                device: torch.device) -> Teacher:
    """Build the teacher that an entry of ``teachers`` describes.

    Raises:
        UserError: its files or its options are wrong.
    """
    weight = entry.get('weight', 1.0)
    if 'ema' in entry:
        return MeanTeacher(name, student, entry['ema'], weight)
    if 'float_self' in entry:
        return FloatTeacher(name, student, weight)
    if 'partners' in entry:
        return PartnerTeacher(name, student, weight)
    config = Config(dict(model=entry['model'])) if 'model' in entry else entry['config']
    options = {option: entry[option] for option in OPTIONS if option in entry}
    return build_teacher(name, config, entry['checkpoint'], student.data_preprocessor, device,
                         weight, options.pop('compile', False), **options)


def checked_entries(entries: Any) -> Mapping[str, Mapping[str, Any]]:
    """Return the entries of ``teachers`` if their keys make sense, spelled out.

    ``precision='auto'`` and names of models (``timm:``, ``hf:``) are resolved.

    Raises:
        UserError: there are none, or an entry has other keys.
    """
    if not entries:
        raise UserError('DistillationHook has no teachers: put '
                        'teachers = dict(NAME=dict(config=..., checkpoint=...)) into the config')
    entries = {name: spelled_out(name, entry) for name, entry in entries.items()}
    for name, entry in entries.items():
        keys = set(entry) - {'weight'}
        if 'checkpoint' in keys:
            keys -= set(OPTIONS)
        if keys not in ({'config', 'checkpoint'}, {'model', 'checkpoint'}, {'ema'}, {'partners'},
                        {'float_self'}):
            raise UserError(f"teacher '{name}' has the keys {sorted(entry)}: give `config` (or "
                            f'`model`) and `checkpoint` (if wanted, {", ".join(OPTIONS)}), or '
                            '`ema`, `partners` or `float_self`, and, if wanted, `weight`')
    return {name: {**entry, 'precision': best_precision()}
            if entry.get('precision') == 'auto' else entry for name, entry in entries.items()}


def built_terms(entries: Any, weights: Any) -> list[Term]:
    """Build the terms whose weight is above 0.

    Args:
        entries: ``terms`` of the config, by name; ``type`` is ``'Term'`` where none stands. A term
            that is built already stays as it is.
        weights: ``distill_weights``: by name, or a sequence in the order of the terms.

    Raises:
        UserError: there is no term, one has no weight or two, or a weight names no term.
    """
    if not isinstance(entries, Mapping) or not entries:
        raise UserError('DistillationHook has nothing to teach: put terms = dict(NAME=dict('
                        "tap=..., loss=dict(type=...))) into the config, or name a recipe of "
                        'configs/_base_/distillation in its _base_')
    own = _by_name(weights, list(entries))
    terms = []
    for name, entry in entries.items():
        term = entry if isinstance(entry, Term) else TERMS.build({'type': 'Term', **entry})
        term.name = name
        term.weight = _weight_of(term, own)
        _check_share(term)
        terms.append(term)
    return [term for term in terms if term.weight > 0]


def check_names(terms: Sequence[Term], teachers: Mapping[str, Any]) -> None:
    """Check that each term learns from teachers that are there.

    Raises:
        UserError: one names another, or none at all.
    """
    for term in terms:
        names = list(teachers if term.teachers is None else term.teachers)
        unknown = [name for name in names if name not in teachers]
        if term.needs_teachers and (unknown or not names):
            wrong = unknown[0] if unknown else ''
            raise UserError(f"term '{term.name}' learns from teachers={names}, and this run has "
                            f'{", ".join(teachers)}: name some of these, or leave it out for all.'
                            f'{did_you_mean(wrong, teachers)}')


def _by_name(weights: Any, names: Sequence[str]) -> Mapping[str, Any] | None:
    if weights is None:
        return None
    if isinstance(weights, Mapping):
        unknown = [name for name in weights if name not in names]
        if unknown:
            raise UserError(f"distill_weights names '{unknown[0]}', which is no term of this "
                            f"config ({', '.join(names)}).{did_you_mean(unknown[0], names)}")
        return weights
    if not isinstance(weights, (list, tuple)) or len(weights) != len(names):
        raise UserError(f'distill_weights is {weights!r}: give a number for each of the terms '
                        f"{', '.join(names)}, in this order or by name")
    return dict(zip(names, weights, strict=True))


def _weight_of(term: Term, weights: Mapping[str, Any] | None) -> float:
    given = None if weights is None else weights.get(term.name)
    if given is not None and term.weight is not None:
        raise UserError(f"term '{term.name}' has weight {term.weight!r} and distill_weights gives "
                        f'it {given!r}: take one of them out')
    if given is None and term.weight is None and weights is not None:
        raise UserError(f"term '{term.name}' has no weight: add it to distill_weights, or give it "
                        'a `weight`')
    weight = next((one for one in (given, term.weight) if one is not None), 1.0)
    number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
    if not number or not math.isfinite(weight) or weight < 0:
        raise UserError(f"term '{term.name}' has weight {weight!r}: give a number of at least 0")
    return weight


def _check_share(term: Term) -> None:
    share = term.gradient_share
    if share is not None and (not isinstance(share, float) or not 0 < share < 1):
        raise UserError(f"term '{term.name}' has gradient_share={share!r}: give a number between 0 "
                        'and 1, such as 0.3, or leave it out to keep the weight')
