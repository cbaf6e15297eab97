"""Images without labels beside a config's training data, or in their place.

``unlabelled = dict(data_root='photos/')`` of a config, or ``--unlabelled photos/``. What they do
in a run: :mod:`mmkd.distillation.unlabelled`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config

from mmkd.distillation.unlabelled import unlabelled_options
from mmkd.engine.config import classes_of
from mmkd.errors import UserError

__all__ = ['use_unlabelled']

OF_LABELS = ('FilterAnnotations', 'LoadProposals')
"""Transforms that have nothing to do where there are no labels."""


def use_unlabelled(cfg: Config) -> None:
    """Give ``DistillationHook`` the images of ``cfg.unlabelled``, if there is such an entry.

    They go through the pipeline of the training data, as images without objects, so that sizes and
    augmentation are the same. With ``only=True`` they take the place of the training data.

    Args:
        cfg: of a training, before :func:`~mmkd.teacher_cache.options.fix_views`; changed.

    Raises:
        UserError: the entry is wrong, nothing distils, or the training data have no pipeline that
            serves.
    """
    options = unlabelled_options(cfg)
    if options is None:
        return
    if cfg.model.get('type') in ('Classifier', 'Cohort'):
        raise UserError('unlabelled is for detectors, and this config trains a '
                        f'{cfg.model.type}: take it out')
    hook = next((hook for hook in cfg.get('custom_hooks') or ()
                 if hook['type'] == 'DistillationHook'), None)
    if hook is None:
        raise UserError('unlabelled images teach nothing without teachers, and this config has '
                        'none: add --teacher CONFIG=CHECKPOINT, or take unlabelled out')
    loader = cfg.train_dataloader
    classes = next(classes_of(loader.dataset), None)
    dataset = dict(type='UnlabelledImages', data_root=options.data_root,
                   pipeline=_for_unlabelled(_pipeline(loader.dataset)),
                   metainfo=None if classes is None else dict(classes=tuple(classes)))
    hook.unlabelled = dict(dataset=dataset, ratio=options.ratio, weight=options.weight,
                           only=options.only)
    if options.only:
        loader.dataset = dataset
        loader.pop('batch_sampler', None)  # it would sort the images by sizes of their annotations
        cfg.find_unused_parameters = True  # of layers that no term reaches


def _pipeline(dataset: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the pipeline of a data set, or of the first that it wraps."""
    if dataset['type'] == 'MultiImageMixDataset':
        raise UserError('unlabelled cannot be used with training data that mix several images '
                        '(MultiImageMixDataset): give train_dataloader a data set with a pipeline '
                        'of its own')
    inner = dataset.get('dataset') or next(iter(dataset.get('datasets') or ()), None)
    if inner is not None:
        return _pipeline(inner)
    if not dataset.get('pipeline'):
        raise UserError(f"unlabelled takes the pipeline of the training data, and {dataset['type']}"
                        ' has none: give it one')
    return dataset['pipeline']


def _for_unlabelled(transforms: Sequence[Any]) -> list[Any]:
    """Return a pipeline for images without objects, or the part of one inside a transform."""
    return [_changed(one) for one in transforms
            if not isinstance(one, Mapping) or one['type'].rpartition('.')[2] not in OF_LABELS]


def _changed(transform: Any) -> Any:
    if isinstance(transform, (list, tuple)):  # what RandomChoice chooses from
        return _for_unlabelled(transform)
    found = dict(transform)
    name = found['type'].rpartition('.')[2]
    if name in ('LoadImage', 'LoadImageFromFile'):
        found['type'] = 'LoadImage'  # says what is wrong with a file
        found.pop('ignore_empty', None)
    elif name == 'LoadAnnotations':
        found['with_seg'] = False
    elif name == 'RandomCrop':
        found['allow_negative_crop'] = True
    if isinstance(found.get('transforms'), (list, tuple)) and name != 'Albu':
        found['transforms'] = _for_unlabelled(found['transforms'])
    return found
