"""What a study file says, checked before anything runs.

::

    baseline = dict(title='student alone', config='configs/demo/centernet_r18.py')
    variants = dict(
        both=dict(title='from both teachers', config='configs/demo/centernet_mt_r18.py'),
        features=dict(config='configs/demo/centernet_mt_r18.py',
                      options={'distill_weights.heatmap': 0, 'distill_weights.wh': 0}))
    teachers = dict(hourglass=dict(config='configs/demo/centernet_hourglass.py',
                                   checkpoint='demo/centernet_hourglass/epoch_8.pth'))
    seeds = [0, 1, 2]
    metric = 'pascal_voc/mAP'
    scale = 100          # print 0.5 as 50
    split = 'test'       # or 'val', where variants are chosen
    threshold = 2.0      # the smallest gain that matters, in what is printed
    picture = 'both'     # draw this variant, the baseline and the best teacher on the same images

A cell may also say ``data``, ``classes``, ``student``, ``members``, ``backbone``, ``data_root``,
``epochs``, ``teacher`` and ``method``: what the options of ``mmkd train`` say. A teacher has all
but the last two. The file is Python: functions and names in capitals are its own, and twenty
methods are one line::

    ALONE = dict(config='classifier', data='cifar100', student='resnet8x4', epochs=30)
    BIG = 'work_dirs/cifar100/ce_resnet32x4_30_epochs/epoch_30.pth'

    baseline = ALONE
    variants = {method: dict(ALONE, teacher=f'resnet32x4={BIG}', method=method)
                for method in ('kd', 'dkd', 'crd')}
    teachers = dict(big=dict(ALONE, student='resnet32x4', checkpoint=BIG))

A variant that has to have another budget than the baseline says in what: ``may_differ=['batch']``,
one or several of :data:`BUDGET`. For all variants, write it into the study: ``may_differ = [...]``.
"""

import argparse
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmkd.config_files import reading, study_path
from mmkd.engine.arguments import CHOICES
from mmkd.errors import UserError, did_you_mean
from mmkd.teacher_cache.identity import difference

__all__ = ['Cell', 'Study', 'Teacher', 'read_study', 'settled', 'what_differs']

BUDGET = {
    'epochs': ('train_cfg',),
    'batch': ('train_dataloader.batch_size',),
    'data': ('train_dataloader', 'val_dataloader', 'test_dataloader'),
    'views': ('model.data_preprocessor.views', 'model.data_preprocessor.pairs'),
    'image size': ('model.data_preprocessor',),
    'network': ('model',),
    'initial weights': ('initial weights', 'load_from'),
    'optimizer': ('optim_wrapper',),
    'schedule': ('param_scheduler',),
    'precision': ('amp',),
}
"""What a variant must share with its baseline, and the entries of the config that say it."""
NOT_HERE = {
    'train_dataloader': ('batch_size',),
    'model': ('data_preprocessor', 'ce_weight'),
    'model.data_preprocessor': ('views', 'pairs'),
}
"""What belongs to another line of :data:`BUDGET`, or is a weight of a loss as those of a term."""
KINDS = dict(baseline=Mapping, variants=Mapping, teachers=Mapping, seeds=list | tuple, metric=str,
             threshold=int | float, scale=int | float, split=str, may_differ=list | tuple,
             picture=str)
"""What the entries of a study are."""
OF_TEACHER = ('config', 'checkpoint', 'options', 'data', 'classes', 'student', 'members',
              'backbone', 'data_root', 'epochs')
TAUGHT = ('teachers', 'terms', 'distill_weights', 'model.ce_weight', 'teacher_cache', 'inherit',
          'unlabelled', 'custom_hooks')


@dataclass(frozen=True)
class Cell:
    """A row of the table: one way to train."""

    name: str
    config: str
    title: str = ''
    options: Mapping[str, Any] = field(default_factory=dict)
    teacher: tuple[str, ...] = ()
    method: str | None = None
    data: str | None = None
    classes: str | None = None
    student: str | None = None
    members: str | None = None
    backbone: str | None = None
    data_root: str | None = None
    epochs: int | None = None
    may_differ: tuple[str, ...] = ()

    @property
    def choices(self) -> list[str]:
        """The words by which ``mmkd train`` is told all but the options."""
        told = [('teacher', text) for text in self.teacher] + [
            (name, getattr(self, name)) for name in CHOICES if name != 'teacher']
        return [word for name, value in told if value
                for word in (f"--{name.replace('_', '-')}", value)]


@dataclass(frozen=True)
class Teacher:
    """A network that is trained first, once, into the folder of ``checkpoint``."""

    cell: Cell
    checkpoint: str


@dataclass(frozen=True)
class Study:
    """A study as its file describes it."""

    name: str
    cells: tuple[Cell, ...]
    teachers: tuple[Teacher, ...]
    seeds: tuple[int, ...]
    metric: str
    threshold: float
    scale: float
    split: str
    may_differ: tuple[str, ...]
    picture: str | None


def read_study(path: str | Path) -> Study:
    """Read a study file.

    Args:
        path: as in the docstring of this module; the first cell of the result is the baseline.

    Raises:
        UserError: the file does not exist, lacks an entry, or has one that nobody reads.
    """
    path = study_path(path)
    if not os.path.isfile(path):
        raise UserError(f"study '{path}' does not exist: correct the path")
    with reading(path, 'study'):
        content = Config.fromfile(path).to_dict()
    said = {name: entry for name, entry in content.items()
            if not name.isupper()}  # constants are the file's own
    _only(said, KINDS, f"study '{path}'")
    _check_kinds(said, KINDS, f"study '{path}'")
    for name in ('baseline', 'variants', 'metric', 'threshold'):
        if not said.get(name):
            raise UserError(f"study '{path}' has no `{name}`: add it")
    teachers = said.get('teachers') or {}
    for name, entry in teachers.items():
        _check_cell(entry, OF_TEACHER, f"teacher '{name}' of study '{path}'")
        if not {'config', 'checkpoint'} <= set(entry):
            raise UserError(f"teacher '{name}' of study '{path}' must have `config` and "
                            '`checkpoint`')
    study = Study(
        path.stem, tuple(_cells(said)),
        tuple(Teacher(_cell(name, dict(title=f'teacher {name}', **{
            key: value for key, value in entry.items() if key != 'checkpoint'})),
            entry['checkpoint']) for name, entry in teachers.items()),
        tuple(said.get('seeds') or (0, 1, 2)), said['metric'], float(said['threshold']),
        float(said.get('scale') or 1), said.get('split') or 'test',
        tuple(said.get('may_differ') or ()), said.get('picture'))
    for cell in (study, *study.cells):
        _only(cell.may_differ, BUDGET, f"`may_differ` of '{cell.name}'")
    if study.split not in ('test', 'val'):
        raise UserError(f"`split` of study '{path}' is {study.split!r}: give 'test' or 'val'")
    if study.picture is not None and study.picture not in said['variants']:
        raise UserError(f"`picture` of study '{path}' is {study.picture!r}, which is none of "
                        f'{", ".join(said["variants"])}')
    return study


def _cells(said: Mapping[str, Any]) -> Iterator[Cell]:
    for name, entry in (dict(baseline=said['baseline']) | said['variants']).items():
        _check_cell(entry, Cell.__dataclass_fields__.keys() - {'name'}, f"'{name}'")
        if 'config' not in entry:
            raise UserError(f"'{name}' has no `config`: name the config that it trains")
        yield _cell(name, entry)


def _cell(name: str, entry: Mapping[str, Any]) -> Cell:
    teacher = entry.get('teacher') or ()
    return Cell(name, **dict(entry) | dict(
        title=entry.get('title') or name.replace('_', ' '),
        options=dict(_dotted(entry.get('options') or {})),
        teacher=(teacher, ) if isinstance(teacher, str) else tuple(teacher),
        may_differ=tuple(entry.get('may_differ') or ())))


def _dotted(options: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
    """Yield options as the command line takes them: ``a.b``, with no dictionary in a value."""
    for name, value in options.items():
        if isinstance(value, Mapping) and value:
            yield from _dotted(value, f'{prefix}{name}.')
        else:
            yield f'{prefix}{name}', value


def _check_cell(entry: Any, known: Any, where: str) -> None:
    if not isinstance(entry, Mapping):
        raise UserError(f"{where} is {entry!r:.100}: write dict(config='...')")
    _only(entry, known, where)
    _check_kinds(entry, dict(options=Mapping, teacher=str | list | tuple, epochs=int,
                             may_differ=list | tuple), where, str)


def _check_kinds(given: Mapping[str, Any], kinds: Mapping[str, Any], where: str,
                 other: type = object) -> None:
    for name, value in given.items():
        if value is not None and (not isinstance(value, kinds.get(name, other)) or (
                isinstance(value, int | float) and not abs(value) < 1e15)):  # NaN, too
            raise UserError(f"`{name}` of {where} is {value!r:.100}: see the examples in studies/")


def _only(given: Any, known: Any, where: str) -> None:
    known = list(known)
    for name in given:
        if name not in known:
            raise UserError(f"{where} says '{name}', which is none of {', '.join(known)}."
                            f'{did_you_mean(str(name), known)}')


def settled(cell: Cell) -> Config:
    """Return the config that ``mmkd train`` makes of a cell."""
    from mmkd.engine.launch import config_from_arguments
    return config_from_arguments(argparse.Namespace(
        config=cell.config, cfg_options=dict(cell.options), work_dir=None, launcher='none',
        epochs=cell.epochs,
        **{name: getattr(cell, name) or None for name in CHOICES}))


def what_differs(study: Study, configs: Mapping[str, Config]) -> dict[str, str]:
    """Say in what each variant differs from the baseline.

    Args:
        study: as read.
        configs: of its cells by name, :func:`settled`.

    Raises:
        UserError: a variant trains with another budget (:data:`BUDGET`) and neither its own
            ``may_differ`` nor the study's has it.
    """
    base, said = configs['baseline'], {}
    for cell in study.cells[1:]:
        cfg, differences = configs[cell.name], []
        for budget, places in BUDGET.items():
            found = next((text for place in places if (
                text := difference(_part(cfg, place), _part(base, place), place, 'baseline'))),
                None)
            if found is None:
                continue
            if budget not in (*study.may_differ, *cell.may_differ):
                raise UserError(f"variant '{cell.name}' has another budget than the baseline: "
                                f"{found}; make them equal, or say may_differ=['{budget}'] in the "
                                'variant')
            differences.append(budget)
        differences += [place for place in TAUGHT if _part(cfg, place) != _part(base, place)]
        said[cell.name] = ', '.join(differences) or 'nothing'
    return said


def _part(cfg: Config, place: str) -> Any:
    """Return one thing that a budget is about, plain."""
    if place == 'initial weights':
        return dict(model=_initial(cfg.model), inherit=_plain(cfg.get('inherit')))
    part: Any = cfg
    for key in place.split('.'):
        part = (part or {}).get(key)
    if place == 'model':
        part = _without_initial(part)
    if isinstance(part, Mapping):
        part = {key: value for key, value in part.items() if key not in NOT_HERE.get(place, ())}
    return _plain(part)


def _initial(node: Any) -> Any:
    """Return the ``init_cfg`` of a model and of its parts, at their places."""
    if not isinstance(node, Mapping):
        return None
    found = {key: _initial(value) for key, value in node.items() if key != 'init_cfg'}
    found = {key: value for key, value in found.items() if value}
    return found | ({'init_cfg': _plain(node['init_cfg'])} if node.get('init_cfg') else {})


def _without_initial(node: Any) -> Any:
    if not isinstance(node, Mapping):
        return node
    return {key: _without_initial(value) for key, value in node.items() if key != 'init_cfg'}


def _plain(value: Any) -> Any:
    return Config(dict(value=value)).to_dict()['value']
