"""Fetch and check the weights that a model is initialised with, before a run begins."""

import os
import re
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlparse

import mmengine
import torch
from filelock import FileLock
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from mmkd.checkpoint_checks import state_dict_of
from mmkd.checkpoints import load_checkpoint_safely
from mmkd.errors import UserError, did_you_mean
from mmkd.registry import MODELS

__all__ = ['fetch_initial_weights']

# The short names of MMDetection's configs, and the tables that mmengine keeps of them.
ALIASES = {'torchvision://': 'torchvision_0.12.json', 'open-mmlab://': 'openmmlab.json'}

# A backbone that has a few layers of its own still starts from published weights.
MIN_FITTING = 0.9

# What mmengine is told to load where the file is a checkpoint of mmkd's classifier: the parts of
# its ResNets for large images are those of torchvision and MMDetection under other names.
CLASSIFIER = 'classifier://'
TORCHVISION_NAMES = ((r'backbone\.stem\.0\.', 'conv1.'), (r'backbone\.stem\.1\.', 'bn1.'),
                     (r'backbone\.stage(\d)\.blocks\.(\d+)\.shortcut\.', r'layer\1.\2.downsample.'),
                     (r'backbone\.stage(\d)\.blocks\.(\d+)\.', r'layer\1.\2.'))


def fetch_initial_weights(cfg: Config) -> None:
    """Download what ``init_cfg=dict(type='Pretrained', ...)`` names anywhere in ``cfg.model``.

    A file is downloaded once into PyTorch's hub cache, whole or not at all, compared with the
    hash in its name, read without unpickling code, and compared with the module that it is for.
    ``checkpoint`` in ``cfg`` then is the path of the file. Processes that start together on a
    machine wait for the one that downloads, with or without a process group.

    The file may also be a checkpoint of mmkd's classifier ``imagenet_resnet18``, ``34`` or ``50``,
    or of such a member of a cohort, for MMDetection's ``ResNet``: its backbone is taken, under
    MMDetection's names. The path then begins with ``classifier://``.

    Args:
        cfg: The run's config, which is changed.

    Raises:
        UserError: A file is missing, cannot be fetched, is damaged, would run code, or belongs
            to another architecture.
    """
    for option, module_cfg, init_cfg in _pretrained(cfg.model, 'model'):
        source = str(init_cfg.checkpoint).removeprefix(CLASSIFIER)
        address = _resolve_alias(source, option)
        # Before anything is downloaded: a misspelt module fails at once.
        module = _build(module_cfg)
        file = _download(address, option) if '://' in address else Path(address).expanduser()
        weights = _read(file, option)
        if _is_classifier(weights):
            _check_classifier(file, weights, module, option)
            init_cfg.checkpoint = f'{CLASSIFIER}{file}'
        else:
            _check_fit(file, weights, init_cfg.get('prefix'), module, option)
            init_cfg.checkpoint = str(file)
        print_log(f'initial weights of {_module_of(option)}: {source}', logger='current')


def _pretrained(node: object, path: str) -> Iterator[tuple[str, ConfigDict, ConfigDict]]:
    """Yield the path of each ``init_cfg`` that names a file, its module's config, and itself."""
    if isinstance(node, dict):
        init_cfgs = node.get('init_cfg') or []
        listed = [('', init_cfgs)] if isinstance(init_cfgs, dict) else (
            (f'.{index}', init_cfg) for index, init_cfg in enumerate(init_cfgs))
        for index, init_cfg in listed:
            if init_cfg.get('type') == 'Pretrained':
                yield f'{path}.init_cfg{index}', node, init_cfg
    if isinstance(node, (dict, list, tuple)):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for name, child in items:
            if name != 'init_cfg':
                yield from _pretrained(child, f'{path}.{name}')


def _module_of(option: str) -> str:
    return option.rpartition('.init_cfg')[0]


def _remedy(option: str) -> str:
    return (f'give a file with --cfg-options {option}.checkpoint=FILE, or train from scratch with '
            f'--cfg-options {_module_of(option)}.init_cfg=None')


def _resolve_alias(source: str, option: str) -> str:
    for scheme, table in ALIASES.items():
        if source.startswith(scheme):
            known = mmengine.load(Path(mmengine.__path__[0], 'hub', table))
            name = source.removeprefix(scheme)
            if name not in known:
                raise UserError(f"{option}.checkpoint='{source}' is no known name: "
                                f'{_remedy(option)}.{did_you_mean(name, known)}')
            return known[name]
    return source


def _build(module_cfg: ConfigDict) -> nn.Module:
    # The random state stays as it is: a run must not depend on where its weights were.
    with torch.random.fork_rng(devices=[]):
        return MODELS.build({**module_cfg, 'init_cfg': None})


def _download(url: str, option: str) -> Path:
    name = Path(urlparse(url).path).name
    file = Path(torch.hub.get_dir(), 'checkpoints', name)
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f'{file}.lock'):  # the system releases it even if the process is killed
        if file.is_file():
            return file
        print_log(f'downloading the initial weights of {_module_of(option)} from {url}',
                  logger='current')
        digest = re.search(r'-([0-9a-f]{8,})\.', name)
        try:
            torch.hub.download_url_to_file(url, str(file), digest and digest.group(1),
                                           progress=os.isatty(2))
        except (OSError, RuntimeError, ValueError, HTTPException) as error:
            raise UserError(f'The initial weights of {_module_of(option)} cannot be fetched from '
                            f'{url} ({error}): {_remedy(option)}.') from error
    return file


def _read(file: Path, option: str) -> dict[str, Tensor]:
    try:
        checkpoint = load_checkpoint_safely(file)
    except UserError as error:
        raise UserError(f'The initial weights of {_module_of(option)} cannot be used ({error}): '
                        f'{_remedy(option)}.') from error
    weights = checkpoint.get('state_dict', checkpoint)  # where mmengine takes them from
    return {name: value for name, value in weights.items() if isinstance(name, str)}


def _is_classifier(weights: dict[str, Tensor]) -> bool:
    return any(name.startswith('backbone.stem.') for name in weights)


def _torchvision_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the backbone of a ResNet classifier, and leave the rest out."""
    renamed = {}
    for name, value in weights.items():
        for ours, theirs in TORCHVISION_NAMES:
            if re.match(ours, name):
                renamed[re.sub(f'^{ours}', theirs, name)] = value
                break
    return renamed


@CheckpointLoader.register_scheme(prefixes=CLASSIFIER, force=True)
def load_from_classifier(filename: str, map_location: str | None = None) -> dict[str, Tensor]:
    """Read the backbone of a ResNet classifier for MMDetection; mmengine calls this."""
    checkpoint = load_checkpoint_safely(filename.removeprefix(CLASSIFIER))
    return _torchvision_names(state_dict_of(checkpoint, filename))


def _expected(module: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in module.state_dict().items()
            if not name.endswith('num_batches_tracked')}


def _fitting(weights: dict[str, Tensor], expected: dict[str, Tensor]) -> int:
    return sum(getattr(weights.get(name), 'shape', None) == value.shape
               for name, value in expected.items())


def _check_classifier(file: Path, weights: dict[str, Tensor], module: nn.Module,
                      option: str) -> None:
    weights, expected = _torchvision_names(weights), _expected(module)
    fitting = _fitting(weights, expected)
    parts = {name.partition('.')[0] for name in expected}
    # A deeper network has all that a shallower one asks for.
    left = [name for name in weights if name not in module.state_dict()
            and name.partition('.')[0] in parts]
    if fitting < MIN_FITTING * len(expected) or left:
        raise UserError(
            f"The initial weights '{file}' are of a classifier that fits {fitting} of the "
            f'{len(expected)} entries of {_module_of(option)} ({type(module).__name__})'
            f"{f' and has {len(left)} more' if left else ''}: imagenet_resnet18, 34 and 50 fit a "
            f"ResNet of their depth, and no other network of mmkd's classifiers has a counterpart; "
            f'{_remedy(option)}.')


def _check_fit(file: Path, weights: dict[str, Tensor], prefix: str | None, module: nn.Module,
               option: str) -> None:
    # As mmengine loads them.
    start = 'module.' if prefix is None else prefix.rstrip('.') + '.'
    weights = {name.removeprefix(start): value for name, value in weights.items()
               if prefix is None or name.startswith(start)}
    expected = _expected(module)
    fitting = _fitting(weights, expected)
    if fitting < MIN_FITTING * len(expected):
        raise UserError(
            f"The initial weights '{file}' fit {fitting} of the {len(expected)} entries of "
            f"{_module_of(option)} ({type(module).__name__}), whose first is "
            f"'{next(iter(expected))}' while theirs is '{next(iter(weights), None)}': "
            f'{_remedy(option)}.')
