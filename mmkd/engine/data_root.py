"""A folder of the user's in the place of a config's data: ``--data ROOT --classes a,b,c``.

Or the config's own data at another place: ``--data-root ROOT``.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmkd.engine.config import counted_classes
from mmkd.errors import UserError
from mmkd.text_files import read_text

__all__ = ['move_data', 'use_data', 'use_number_of_classes']

SPLITS = ('train', 'val', 'test')
COCO_NAMES = ('instances_{}.json', 'instances_{}2017.json', '{}.json', '{}2017.json')


def use_data(cfg: Config, root: str | Path, classes: Sequence[str] | None = None) -> None:
    """Let ``cfg`` train and evaluate on the data below ``root``, with pipelines as they are.

    A folder in VOC layout has ``ImageSets/Main/{train,val,test}.txt``, ``JPEGImages`` and
    ``Annotations``; one in COCO's has ``annotations/instances_{train,val,test}.json`` (or
    ``...2017.json``) and the images in ``train``, ``val``, ``test`` (or ``...2017``, ``images``).
    Without a test split the validation images are tested on. Numbers of classes follow everywhere
    in the model.

    Args:
        cfg: of a detector; changed.
        root: the folder.
        classes: their names; None for those that the COCO files have.

    Raises:
        UserError: the folder has neither layout, lacks a split, or ``classes`` are missing.
    """
    root = Path(root)
    if (root / 'ImageSets' / 'Main').is_dir():
        if not classes:
            raise UserError(f"--data {root} is in VOC layout, which does not name its classes: add "
                            '--classes a,b,c')
        splits = {split: _voc(root, split, classes) for split in SPLITS}
        evaluators = {split: dict(type='VOCMeanAPMetric') for split in SPLITS}
    elif (root / 'annotations').is_dir():
        splits = {split: _coco(root, split, classes) for split in SPLITS}
        classes = classes or _coco_classes(root, splits['train'])
        evaluators = {split: dict(type='CocoMetric', metric='bbox', ann_file=str(
            root / splits[split]['ann_file'])) for split in SPLITS}
    else:
        raise UserError(f"--data {root} has neither ImageSets/Main (VOC layout) nor annotations "
                        '(COCO layout): see the README, "Your own data"')
    for split, described in splits.items():
        loader = cfg[f'{split}_dataloader']
        described['pipeline'] = _pipeline(loader['dataset'])
        described['metainfo'] = dict(classes=tuple(classes))
        loader['dataset'] = described
    cfg.val_evaluator, cfg.test_evaluator = evaluators['val'], evaluators['test']
    use_number_of_classes(cfg.model, len(classes))


def move_data(cfg: Config, root: str | Path) -> None:
    """Let the data of ``cfg`` lie in ``root`` and not in its ``data_root``.

    Args:
        cfg: changed, in its data loaders and evaluators.
        root: a folder with the same content.

    Raises:
        UserError: the config has no ``data_root``, or its data lie elsewhere.
    """
    old = cfg.get('data_root')
    if not isinstance(old, str) or not old.strip('/'):
        raise UserError(f"--data-root: config '{cfg.filename}' has no data_root to replace: give "
                        '--cfg-options train_dataloader.dataset.data_root=FOLDER and so on')
    old, new = old.rstrip('/'), str(root).rstrip('/') or '/'

    def moved(node: Any) -> Any:
        if isinstance(node, Mapping):
            return {key: moved(value) for key, value in node.items()}
        if isinstance(node, (list, tuple)):
            return type(node)(moved(value) for value in node)
        if isinstance(node, str) and f'{node}/'.startswith(f'{old}/'):
            return new + node[len(old):]
        return node

    before = {name: cfg[name] for name in cfg if name.endswith(('_dataloader', '_evaluator'))}
    for name, value in before.items():
        cfg[name] = moved(value)
    if before and all(cfg[name] == value for name, value in before.items()) and new != old:
        raise UserError(f"--data-root: no path of the data of '{cfg.filename}' begins with its "
                        f"data_root, '{old}': give --cfg-options "
                        'train_dataloader.dataset.data_root=FOLDER and so on')
    cfg.data_root = moved(cfg.data_root)


def use_number_of_classes(model: Mapping[str, Any], count: int) -> None:
    """Set every number of the data's classes in a model's config; changed.

    A list of the classes' weights, with one for no object at its end, becomes as long.
    """
    for place, before in list(counted_classes(model, 'model')):
        node: Any = model
        *steps, last = place.removeprefix('model.').replace('[', '.').replace(']', '').split('.')
        for step in steps:
            node = node[int(step) if step.isdigit() else step]
        node[last] = count
        loss = node.get('loss_cls') or {}
        weights = loss.get('class_weight')
        if isinstance(weights, (list, tuple)) and len(weights) == before + 1:
            loss['class_weight'] = [*weights[:1] * count, weights[-1]]


def _voc(root: Path, split: str, classes: Sequence[str]) -> dict[str, Any]:
    name = _existing(root, split, [f'ImageSets/Main/{one}.txt' for one in _or_val(split)])
    found = dict(type='VOCLayoutDataset', data_root=f'{root}/', ann_file=name)
    return found | (dict(filter_cfg=dict(filter_empty_gt=True)) if split == 'train' else
                    dict(test_mode=True))


def _coco(root: Path, split: str, classes: Sequence[str] | None) -> dict[str, Any]:
    splits = _or_val(split)
    name = _existing(root, split, [f'annotations/{form.format(one)}' for one in splits
                                   for form in COCO_NAMES])
    folders = [folder for one in splits for folder in (one, f'{one}2017')] + ['images', '.']
    images = next(folder for folder in folders if (root / folder).is_dir())
    found = dict(type='CocoDataset', data_root=f'{root}/', ann_file=name,
                 data_prefix=dict(img=f'{images}/'))
    return found | (dict(filter_cfg=dict(filter_empty_gt=True)) if split == 'train' else
                    dict(test_mode=True))


def _or_val(split: str) -> list[str]:
    return [split, 'val'] if split == 'test' else [split]


def _existing(root: Path, split: str, names: Sequence[str]) -> str:
    for name in names:
        if (root / name).is_file():
            return name
    raise UserError(f"--data {root} has no {split} split: none of {', '.join(names)} is there")


def _coco_classes(root: Path, described: Mapping[str, Any]) -> list[str]:
    path = root / described['ann_file']
    text = read_text(path, 'export the annotations again.')
    try:
        classes = [one['name'] for one in sorted(json.loads(text)['categories'],
                                                 key=lambda one: one['id'])]
        if not classes or not all(isinstance(name, str) for name in classes):
            raise ValueError('no names of categories')
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(f"'{path}' is no COCO JSON with categories ({type(error).__name__}: {error}"
                        '): export it again, or name the classes with --classes a,b') from error
    return classes


def _pipeline(dataset: Mapping[str, Any]) -> Any:
    """Return the pipeline of a data set, or of the first that it wraps."""
    return next(_pipelines(dataset))


def _pipelines(dataset: Mapping[str, Any]) -> Iterator[Any]:
    if 'dataset' in dataset:
        yield from _pipelines(dataset['dataset'])
    for one in dataset.get('datasets', ()):
        yield from _pipelines(one)
    if 'pipeline' in dataset:
        yield dataset['pipeline']
    raise UserError('--data: the config\'s data set has no pipeline to keep: name a config of a '
                    'detector')
