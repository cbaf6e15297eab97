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
    may_differ = []      # see BUDGET
    picture = 'both'     # draw this variant, the baseline and the best teacher on the same images

A cell may also say ``data``, ``classes``, ``student``, ``members``, ``backbone``, ``data_root``,
``teacher`` and ``method``: what the options of ``mmkd train`` say. A teacher has all but the last
two::

    baseline = dict(config='classifier', data='cifar100', student='resnet8x4')
    variants = dict(dkd=dict(config='classifier', data='cifar100', student='resnet8x4',
                             teacher='resnet32x4', method='dkd'))
    teachers = dict(big=dict(config='classifier', data='cifar100', student='resnet32x4',
                             checkpoint='work_dirs/cifar100/ce_resnet32x4/epoch_240.pth'))

Functions and names in capitals are the file's own.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmkd.config_files import study_path
from mmkd.distillation.cache.identity import difference
from mmkd.engine.arguments import CHOICES
from mmkd.errors import UserError, did_you_mean

__all__ = ['Cell', 'Study', 'Teacher', 'read_study', 'settled', 'what_differs']

BUDGET = {
    'epochs': ('train_cfg',),
    'batch': ('train_dataloader.batch_size',),
    'data': ('train_dataloader', 'val_dataloader', 'test_dataloader'),
    'image size': ('model.data_preprocessor',),
    'network': ('model',),
    'initial weights': ('initial weights', 'load_from'),
    'optimizer': ('optim_wrapper',),
    'schedule': ('param_scheduler',),
    'precision': ('amp',),
}
"""What a variant must share with its baseline, and the entries of the config that say it."""
OF_TEACHER = ('config', 'checkpoint', 'data', 'classes', 'student', 'members', 'backbone',
              'data_root')
TAUGHT = ('teachers', 'terms', 'distill_weights', 'teacher_cache', 'inherit', 'custom_hooks')


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
    if not path.is_file():
        raise UserError(f"study '{path}' does not exist: correct the path")
    said = {name: entry for name, entry in Config.fromfile(path).to_dict().items()
            if not name.isupper()}  # constants are the file's own
    _only(said, ('baseline', 'variants', 'teachers', 'seeds', 'metric', 'threshold', 'scale',
                 'split', 'may_differ', 'picture'), f"study '{path}'")
    for name in ('baseline', 'variants', 'metric', 'threshold'):
        if not said.get(name):
            raise UserError(f"study '{path}' has no `{name}`: add it")
    for name, entry in said.get('teachers', {}).items():
        _only(entry, OF_TEACHER, f"teacher '{name}' of study '{path}'")
        if not {'config', 'checkpoint'} <= set(entry):
            raise UserError(f"teacher '{name}' of study '{path}' must have `config` and "
                            '`checkpoint`')
    may_differ = tuple(said.get('may_differ', ()))
    _only(may_differ, BUDGET, f"`may_differ` of study '{path}'")
    study = Study(
        path.stem, tuple(_cells(said)),
        tuple(Teacher(Cell(name, title=f'teacher {name}', **{
            key: value for key, value in entry.items() if key != 'checkpoint'}),
            entry['checkpoint']) for name, entry in said.get('teachers', {}).items()),
        tuple(said.get('seeds', (0, 1, 2))), said['metric'], float(said['threshold']),
        float(said.get('scale', 1)), said.get('split', 'test'), may_differ, said.get('picture'))
    if study.split not in ('test', 'val'):
        raise UserError(f"`split` of study '{path}' is {study.split!r}: give 'test' or 'val'")
    if study.picture is not None and study.picture not in said['variants']:
        raise UserError(f"`picture` of study '{path}' is {study.picture!r}, which is none of "
                        f'{", ".join(said["variants"])}')
    return study


def _cells(said: Mapping[str, Any]) -> Iterator[Cell]:
    for name, entry in (dict(baseline=said['baseline']) | said['variants']).items():
        _only(entry, Cell.__dataclass_fields__.keys() - {'name'}, f"'{name}'")
        if 'config' not in entry:
            raise UserError(f"'{name}' has no `config`: name the config that it trains")
        teacher = entry.get('teacher', ())
        yield Cell(name, entry['config'], entry.get('title', name.replace('_', ' ')),
                   dict(_dotted(entry.get('options', {}))),
                   (teacher, ) if isinstance(teacher, str) else tuple(teacher),
                   **{choice: entry.get(choice) for choice in CHOICES if choice != 'teacher'})


def _dotted(options: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
    """Yield options as the command line takes them: ``a.b``, with no dictionary in a value."""
    for name, value in options.items():
        if isinstance(value, Mapping) and value:
            yield from _dotted(value, f'{prefix}{name}.')
        else:
            yield f'{prefix}{name}', value


def _only(given: Any, known: Any, where: str) -> None:
    for name in given:
        if name not in known:
            raise UserError(f"{where} says '{name}', which is none of {', '.join(known)}."
                            f'{did_you_mean(name, known)}')


def settled(cell: Cell) -> Config:
    """Return the config that ``mmkd train`` makes of a cell."""
    from mmkd.engine.launch import config_from_arguments
    return config_from_arguments(argparse.Namespace(
        config=cell.config, cfg_options=dict(cell.options), work_dir=None, launcher='none',
        **{name: getattr(cell, name) or None for name in CHOICES}))


def what_differs(study: Study, configs: Mapping[str, Config]) -> dict[str, str]:
    """Say in what each variant differs from the baseline.

    Args:
        study: as read.
        configs: of its cells by name, :func:`settled`.

    Raises:
        UserError: a variant trains with another budget (:data:`BUDGET`) and ``may_differ`` does
            not have it.
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
            if budget not in study.may_differ:
                raise UserError(f"variant '{cell.name}' has another budget than the baseline: "
                                f"{found}; make them equal, or say may_differ=['{budget}'] in the "
                                'study')
            differences.append(budget)
        differences += [place for place in TAUGHT if
                        _plain(cfg.get(place)) != _plain(base.get(place))]
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
