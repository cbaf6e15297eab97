"""What stored outputs depend on, and how two such descriptions differ."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmkd.checkpoint_checks import state_dict_of, weights_hash
from mmkd.checkpoints import load_checkpoint_safely
from mmkd.config_files import config_path, read_config
from mmkd.errors import UserError
from mmkd.teacher_cache.options import CacheOptions

__all__ = ['content_hash', 'data_identity', 'difference', 'teacher_identity']

FORMAT = 3
NO_INFLUENCE = ('init_cfg', 'train_cfg', 'test_cfg')
ENTRY = ('prefix', 'preprocessor', 'size', 'multiple_of')
"""What of a teacher's entry changes what it says, beside network, precision and weights."""
PLACES = ('data_root', 'data_prefix', 'ann_file', 'metainfo')  # their content is hashed


def data_identity(dataset: Any, cfg: Config, options: CacheOptions) -> dict[str, Any]:
    """Describe the views: images with their labels or boxes, pipeline, preprocessing, seed.

    Folders do not count: the data may move.

    Args:
        dataset: the training data, without :class:`FixedViews` around it.
        cfg: of the run.
        options: its ``teacher_cache``.

    Raises:
        UserError: the data set has neither ``identity()`` nor mmengine's ``get_data_info``.
    """
    described = cfg.train_dataloader.dataset
    if described['type'] == 'FixedViews':
        described = described['dataset']
    return _plain({
        'format': FORMAT,
        'images': len(dataset),
        'content': content_hash(dataset),
        'dataset': _without(PLACES, described),
        'data preprocessor of the student': cfg.model.get('data_preprocessor'),
        'seed': options.seed,
        'kind of views': 'all' if options.views == 'all' else 'drawn',
    })


def teacher_identity(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a teacher by its network, precision and weights.

    Args:
        entry: of the config's ``teachers``.

    Raises:
        UserError: its config or checkpoint cannot be read.
    """
    model = entry['model'] if 'model' in entry else _model_of(entry['config'])
    options = {name: entry.get(name) for name in ENTRY if name in entry}
    return _plain({'teacher': _without(NO_INFLUENCE, model), 'precision': entry.get('precision'),
                   'options': options, 'weights': _weights(entry['checkpoint'])})


def _model_of(config: str) -> Any:
    path = config_path(config)
    if not path.is_file():
        raise UserError(f"config '{config}' does not exist: correct the path")
    model = read_config(path).get('model')
    if model is None:
        raise UserError(f"config '{config}' has no `model`: name a training config")
    return model


def difference(theirs: Any, ours: Any, place: str = '', of_ours: str = 'run') -> str | None:
    """Say where two descriptions first differ, or return None; ``of_ours`` says whose ours is."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        keys = [*ours, *(key for key in theirs if key not in ours)]
        pairs = [(f'{place}.{key}' if place else key, theirs.get(key), ours.get(key))
                 for key in keys]
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        pairs = [(f'{place}[{i}]', *pair) for i, pair in enumerate(zip(theirs, ours, strict=True))]
    elif theirs == ours:
        return None
    else:
        return f"its '{place}' is {_short(theirs)} and that of the {of_ours} {_short(ours)}"
    return next((found for name, a, b in pairs if (found := difference(a, b, name, of_ours))),
                None)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else f'{text[:57]}...'


def _plain(value: Any) -> Any:
    """Return what JSON makes of a config's entry."""
    return json.loads(json.dumps(value, default=str))


def _without(keys: Sequence[str], entry: Any) -> Any:
    if isinstance(entry, Mapping):
        return {key: _without(keys, value) for key, value in entry.items() if key not in keys}
    if isinstance(entry, Sequence) and not isinstance(entry, str):
        return [_without(keys, value) for value in entry]
    return entry


def content_hash(dataset: Any) -> str:
    """Return a hash of a data set's images, by their names, and of their labels or boxes.

    Raises:
        UserError: the data set has neither ``identity()`` nor mmengine's ``get_data_info``.
    """
    if hasattr(dataset, 'identity'):
        return dataset.identity()
    if not hasattr(dataset, 'get_data_info'):
        raise UserError(f'the images of {type(dataset).__name__} cannot be told apart, which a '
                        'cache or a study needs: give it a method identity() that returns '
                        'a hash of them')
    sums = hashlib.sha256()
    for i in range(len(dataset)):
        info = {key: Path(value).name if isinstance(value, str) else value
                for key, value in dataset.get_data_info(i).items() if key != 'sample_idx'}
        sums.update(json.dumps(info, sort_keys=True, default=str).encode())
    return sums.hexdigest()


def _weights(path: str | Path) -> str:
    return weights_hash(state_dict_of(load_checkpoint_safely(path), path))
