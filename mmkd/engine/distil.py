"""Turn a training config into a distillation: ``--teacher CONFIG=CHECKPOINT --method NAME``.

A teacher may also be a backbone alone, ``timm:NAME=CHECKPOINT`` or ``hf:FOLDER``; see
:mod:`mmkd.distillation.foundation`.
"""

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmkd.config_files import CARRIED, config_path, read_config
from mmkd.distillation.branch import names_of_facts
from mmkd.distillation.foundation import FEATURES as FOUNDATION
from mmkd.distillation.foundation import is_foundation, spelled_out
from mmkd.distillation.step import known_facts
from mmkd.engine.run_folder import CONFIG, run_files
from mmkd.errors import UserError, did_you_mean
from mmkd.registry import MODELS

__all__ = ['describe_methods', 'distil', 'family_of', 'methods', 'model_of', 'preset_of',
           'teacher_entries', 'terms_of']

PRESETS = CARRIED / 'configs' / '_base_' / 'distillation'
CENTERNET_TERMS = ('CenterNetTerm', 'FeatureTerm')
BETWEEN = (dict.fromkeys(CENTERNET_TERMS, 'CenterNets')
           | dict.fromkeys(('DenseTerm', 'CrossKDTerm'), 'dense heads')
           | dict.fromkeys(('DETRTerm', 'DETRFeatureTerm', 'DETRQueryTerm', 'KDDETRTerm'), 'DETRs')
           | dict(ScoreTerm='any, from dense heads', ProposalTerm='two-stage'))
"""By the type of a term the detectors that it is for; any, for others."""
FEATURES = 'neck:*'
"""What presets tap; a detector without a neck has its features elsewhere."""
BEFORE_HEAD = 'bbox_head:input:-1'
BEHIND_BACKBONE = 'backbone:*'
"""Where neither a neck nor a ``bbox_head`` is: Mask2Former, Faster R-CNN on one stage."""


def methods() -> dict[str, Path]:
    """Return the presets by name."""
    return {path.stem: path for path in sorted(PRESETS.glob('*.py'))}


def describe_methods() -> str:
    """Return a line for each method: its name, for which detectors, what it needs, what it is."""
    rows = [('method', 'between', 'needs', '')]
    for name, path in methods().items():
        terms = read_config(path).terms.values()
        kinds = [BETWEEN[term.type] for term in terms if term.get('type') in BETWEEN]
        kinds += ['any, from a backbone' for term in terms if _is_of_foundation(term)]
        needs = sorted({fact for term in terms for fact, needed in
                        names_of_facts(MODELS.get(term.loss.type)).items()
                        if needed and fact in known_facts()})
        rows.append((name, kinds[0] if kinds else 'any detectors', ', '.join(needs) or '-',
                     _first_comment(path)))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return '\n'.join('  '.join([*(f'{cell:<{width}}' for cell, width in
                                  zip(row, widths, strict=False)), row[3]]).rstrip()
                     for row in rows)


def family_of(model: Mapping[str, Any]) -> str:
    """Return what kind of detector the config of a model describes, or that it is a backbone."""
    if is_foundation(model):
        return 'foundation'
    if model.get('roi_head'):
        return 'two_stage'
    if model.get('decoder') or model.get('panoptic_head'):
        return 'detr'
    head = (model.get('bbox_head') or model.get('mask_head') or {}).get('type', '')
    if head == 'CenterNetHead':
        return 'centernet'
    if head == 'FCOSHead':
        return 'fcos'
    return 'dense' if head else 'classifier'


def distil(cfg: Config, teachers: Sequence[str], names: Sequence[str] | None = None) -> None:
    """Let the student of ``cfg`` learn from teachers.

    Taps, connectors, weights and matching come from the methods' presets, which are config files in
    ``configs/_base_/distillation``, and from what the student's and the teachers' models are.

    Teachers and terms that the config has already are replaced.

    Args:
        cfg: of a training; changed.
        teachers: ``'CONFIG=CHECKPOINT'`` each, the folder of a run, ``'timm:NAME=CHECKPOINT'`` or
            ``'hf:FOLDER'``.
        names: methods; None for the recommended recipe (``joint``) between CenterNets, else PKD,
            and ``foundation`` from a backbone alone.

    Raises:
        UserError: a method does not exist or fits none of the teachers, or a teacher is misnamed.
    """
    entries = teacher_entries(teachers)
    models = {name: model_of(entry) for name, entry in entries.items()}
    if names is None:
        names = _usual(cfg.model, models)
    terms: dict[str, dict[str, Any]] = {}
    for name in names:
        for key, term in terms_of(name, cfg.model, models, several=len(names) > 1):
            terms[key if key not in terms else f'{name}_{key}'] = term
    cfg.teachers = entries
    cfg.distill_weights = {key: term.pop('weight', 1.0) for key, term in terms.items()}
    cfg.terms = terms
    # Without the config's own hook, if it distils already: two would both record the student.
    others = [hook for hook in cfg.get('custom_hooks') or []
              if not (isinstance(hook, Mapping) and hook.get('type') == 'DistillationHook')]
    cfg.custom_hooks = [*others, dict(type='DistillationHook')]


def teacher_entries(teachers: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the entries of ``teachers`` for what ``--teacher`` says, each time it is given.

    Raises:
        UserError: a teacher is misnamed, or its files are not there.
    """
    entries: dict[str, dict[str, Any]] = {}
    for text in teachers:
        entries.update(_entry(text, entries))
    return entries


def model_of(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the config of a teacher's model."""
    return entry['model'] if 'model' in entry else read_config(entry['config']).get('model') or {}


def _usual(student: Mapping[str, Any], teachers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the methods that are taken where none is named."""
    kinds = {family_of(model) for model in teachers.values()}
    detectors = kinds - {'foundation'}
    names = ['foundation'] if 'foundation' in kinds else []
    if detectors:
        names.insert(0, 'joint' if detectors | {family_of(student)} == {'centernet'} else 'pkd')
    return names


def _entry(text: str, known: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    if is_foundation(text):
        model, _, checkpoint = text.partition('=')
        name = Path(model.rstrip('/').partition(':')[2]).name.partition('=')[0]
        entry = dict(model=model, **(dict(checkpoint=checkpoint) if checkpoint else {}))
        name = _unused(re.sub(r'\W', '_', name), known)
        return {name: spelled_out(name, entry)}
    if Path(text).is_dir() or (text.endswith('.pth') and '=' not in text):
        config, checkpoint = run_files(text)
    else:
        config, _, checkpoint = text.rpartition('=')
    if not config or not checkpoint:
        raise UserError(f"--teacher '{text}': give the folder of a run, or CONFIG=CHECKPOINT, such "
                        'as mmdet::retinanet/retinanet_r50_fpn_1x_coco.py=r50.pth')
    if not config_path(config).is_file():
        raise UserError(f"--teacher '{text}': the config '{config}' does not exist: correct the "
                        'path')
    path = Path(config.partition('::')[2] or config)
    name = (path.absolute().parent.name if path.name == CONFIG else path.stem).replace('.', '_')
    return {_unused(name, known): dict(config=config, checkpoint=checkpoint)}


def _unused(name: str, known: Mapping[str, Any]) -> str:
    while name in known:
        name += '_2'
    return name


def terms_of(method: str, student: Mapping[str, Any], teachers: Mapping[str, Mapping[str, Any]],
             several: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the terms of a method's preset for these models, by name.

    Args:
        method: the preset.
        student: its `model`.
        teachers: theirs.
        several: whether other methods teach besides.

    Raises:
        UserError: it does not exist or fits none of the teachers.
    """
    preset = preset_of(method)
    weights = preset.get('distill_weights') or {}
    if not isinstance(weights, Mapping):
        weights = dict(zip(preset.terms, weights, strict=True))
    special = (preset.get('for_family', {}).get(family_of(student), {}),
               preset.get('for_head', {}).get(_head_of(student), {}))
    kinds = {name: family_of(model) for name, model in teachers.items()}
    centernets = [name for name, kind in kinds.items() if kind == 'centernet']
    alone = [name for name, kind in kinds.items() if kind == 'foundation']
    detectors = [name for name in teachers if name not in alone]
    for key, entry in preset.terms.items():
        described = Config(dict(term=copy.deepcopy(entry.to_dict())))
        if key in weights:
            described.term.weight = weights[key]
        for changes in special:
            described.merge_from_dict(dict(term=changes.get(key, {})))
        term = described.term.to_dict()
        if term.get('type') in CENTERNET_TERMS:
            if family_of(student) != 'centernet' or not centernets:
                raise UserError(f'--method {method} is for a CenterNet that learns from '
                                'CenterNets: take one for features of any detector, such as pkd')
            taught = centernets
        elif _is_of_foundation(term):
            taught = alone
        else:
            taught = [name for name in detectors if not several or name not in centernets
                      or len(centernets) == len(detectors)]
        if not taught:
            raise UserError(_unfit(method, _is_of_foundation(term), teachers))
        yield from _by_features(key, term, student, teachers, taught)


def preset_of(method: str) -> Config:
    """Return the preset of a method.

    Raises:
        UserError: there is no such method.
    """
    known = methods()
    if method not in known:
        raise UserError(f"--method '{method}' is none of {', '.join(known)}."
                        f'{did_you_mean(method, known)}')
    return read_config(known[method])


def _is_of_foundation(term: Mapping[str, Any]) -> bool:
    return term.get('teacher_tap') == FOUNDATION


def _unfit(method: str, of_foundation: bool, teachers: Mapping[str, Any]) -> str:
    if of_foundation:
        return (f'--method {method} is for teachers that are a backbone alone '
                f'(timm:NAME=CHECKPOINT, hf:FOLDER), and here are {", ".join(teachers)}: take '
                'another method, such as pkd')
    return (f'--method {method} is between detectors, and {", ".join(teachers)} is a backbone '
            'alone: take foundation, foundation_pkd or foundation_l2')


def _by_features(key: str, term: dict[str, Any], student: Mapping[str, Any],
                 teachers: Mapping[str, Mapping[str, Any]], taught: Sequence[str]
                 ) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a term for each place in which teachers have their features."""
    if term.get('tap') != FEATURES:
        if len(taught) < len(teachers):
            term['teachers'] = list(taught)
        yield key, term
        return
    fits: dict[tuple, list[str]] = {}
    for name in taught:
        fits.setdefault(tuple(_fit(student, teachers[name]).items()), []).append(name)
    for number, (fit, names) in enumerate(fits.items()):
        one = term | dict(fit)
        if term.get('type') == 'ScoreTerm':
            one['size'] = term['size']  # the scores are of the teacher's cells
        if len(names) < len(teachers):
            one['teachers'] = names
        yield (key if number == 0 else f'{key}_{number + 1}'), one


def _fit(student: Mapping[str, Any], teacher: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a term depends on where two detectors have their features.

    Between a pyramid and a single fine map the pyramid's finest level meets that map, whatever the
    strides.
    """
    fit = dict(tap=_features(student))
    theirs = _features(teacher)
    if _is_single(student) != _is_single(teacher):
        if _is_single(student):
            theirs = theirs.replace('*', '0')
        else:
            fit['tap'] = fit['tap'].replace('*', '0')
        fit |= dict(match='order', size='student')
    return fit if theirs == fit['tap'] else fit | dict(teacher_tap=theirs)


def _features(model: Mapping[str, Any]) -> str:
    if model.get('neck'):
        return FEATURES
    return BEFORE_HEAD if model.get('bbox_head') else BEHIND_BACKBONE


def _is_single(model: Mapping[str, Any]) -> bool:
    return _features(model) == BEFORE_HEAD or family_of(model) == 'centernet'


def _head_of(model: Mapping[str, Any]) -> str:
    return (model.get('bbox_head') or {}).get('type', '').rpartition('.')[2]


def _first_comment(path: Path) -> str:
    line = path.read_text(encoding='utf-8').partition('\n')[0]
    return line.partition(': ')[2]
