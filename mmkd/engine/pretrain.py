"""A backbone learns from teachers on images alone, before it becomes part of anything.

What ``mmkd pretrain`` trains is a run as any other: :func:`pretraining` makes its config, of
``configs/_base_/pretrain.py``, and ``unlabelled.only`` does the rest.
"""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from mmkd.checkpoints import load_checkpoint_safely
from mmkd.config_files import CARRIED, config_path, read_config
from mmkd.detection.data.unlabelled import images_below
from mmkd.engine.config import load_config
from mmkd.engine.distil import model_of, preset_of, teacher_entries
from mmkd.engine.run_folder import LAST
from mmkd.engine.schedule import set_epochs
from mmkd.errors import UserError
from mmkd.files import write_atomically
from mmkd.registry import MODELS
from mmkd.timm_networks import TIMM

__all__ = ['BACKBONE', 'pretraining', 'write_backbone']

BASE = CARRIED / 'configs' / '_base_' / 'pretrain.py'
BACKBONE = 'backbone.pth'
"""What a pretraining leaves in its folder."""
DEPTHS = (18, 34, 50, 101, 152)
FROM_SCRATCH = dict(frozen_stages=-1, norm_eval=False, init_cfg=None)
"""In place of what a detector's config says of a backbone that was trained already."""


def pretraining(backbone: str, teachers: Sequence[str], data: str, method: str = 'foundation',
                epochs: int | None = None, size: int | None = None,
                batch_size: int | None = None) -> Config:
    """Return the config of a pretraining.

    Args:
        backbone: ``resnet18``, ``34``, ``50``, ``101`` or ``152`` for MMDetection's;
            ``timm:NAME``; a network of :mod:`mmkd.classification.networks`; or a config, for its
            backbone.
        teachers: what ``--teacher`` of a detector takes, and classifiers of mmkd likewise.
        data: a folder of images, at any depth.
        method: ``foundation``, ``foundation_pkd`` or ``foundation_l2``.
        epochs: passes over the folder; None for what the base says.
        size: height and width of what the backbone sees; None for the base's.
        batch_size: images in a step; None for the base's.

    Raises:
        UserError: the backbone, a teacher or the method is none, or has no map to compare; the
            folder has fewer images than a step.
    """
    cfg = load_config(BASE)
    cfg.model.backbone = _backbone(backbone)
    entries = teacher_entries(teachers)
    term = _term(method)
    term['tap'] = f'backbone{_last(cfg.model.backbone)}'
    cfg.teachers = entries
    cfg.terms = {}
    taps: dict[str, list[str]] = {}
    for name, entry in entries.items():
        taps.setdefault(_teacher_tap(name, model_of(entry)), []).append(name)
    for number, (tap, names) in enumerate(taps.items(), 1):
        key = method if number == 1 else f'{method}_{number}'
        # As many terms as places: a teacher's share is the same wherever its features are.
        cfg.terms[key] = term | dict(teacher_tap=tap, teachers=names,
                                     weight=len(names) / len(entries))
    cfg.unlabelled = dict(data_root=str(data), only=True)
    cfg.train_dataloader.dataset.data_root = str(data)
    if size is not None:
        cfg.train_dataloader.dataset.pipeline[2].scale = (size, size)
    if batch_size is not None:
        cfg.train_dataloader.batch_size = batch_size
    _check_sizes(cfg, str(data))
    if epochs is not None:
        set_epochs(cfg, epochs)
    cfg.work_dir = f"work_dirs/pretrain_{Path(re.sub('[:]', '_', backbone)).stem}"
    return cfg


def _check_sizes(cfg: Config, data: str) -> None:
    size = cfg.train_dataloader.dataset.pipeline[2].scale[0]
    batch, images = cfg.train_dataloader.batch_size, len(images_below(data))
    if size < 1 or batch < 2:
        raise UserError(f'--size {size} and --batch-size {batch}: give at least 1 pixel and 2 '
                        'images')
    if images < batch:
        raise UserError(f"the folder '{data}' holds {images} images, fewer than a step takes: give "
                        f'a --batch-size of at most {images}, or more images')


def write_backbone(cfg: Config) -> Path:
    """Write the weights of a finished pretraining under the backbone's own names.

    Args:
        cfg: of the run.

    Returns:
        the file, which ``init_cfg=dict(type='Pretrained', checkpoint=FILE)`` of the same backbone
        takes, and of one of timm's timm itself.

    Raises:
        UserError: the run left no checkpoint.
    """
    state = load_checkpoint_safely(Path(cfg.work_dir, LAST))['state_dict']
    prefix = f"backbone.{'network.' if cfg.model.backbone.type == 'TimmNetwork' else ''}"
    content = io.BytesIO()
    torch.save({name.removeprefix(prefix): value for name, value in state.items()
                if name.startswith(prefix)}, content)
    path = Path(cfg.work_dir, BACKBONE)
    write_atomically(path, content.getvalue())
    return path


def _backbone(text: str) -> dict[str, Any]:
    """Return the config of a backbone that begins from random weights and learns as a whole."""
    if text.startswith(TIMM):
        return dict(type='TimmNetwork', name=text.removeprefix(TIMM))
    if text in {f'resnet{depth}' for depth in DEPTHS}:
        return dict(type='ResNet', depth=int(text.removeprefix('resnet')), norm_eval=False)
    if text.isidentifier() and MODELS.get(text) is not None:
        return dict(type=text)
    try:
        path = config_path(text)
    except UserError as error:
        raise UserError(f"'{text}' is no backbone: give resnet18, {TIMM}NAME, the name of a "
                        'network of mmkd such as resnet18_cifar, or a config, for its backbone') \
            from error
    if not path.is_file():
        raise UserError(f"config '{text}' does not exist: correct the path")
    found = (read_config(path).get('model') or {}).get('backbone')
    if not found:
        raise UserError(f"the model of config '{text}' has no backbone: name another config")
    backbone = {key: FROM_SCRATCH.get(key, value) for key, value in found.to_dict().items()}
    if 'requires_grad' in (backbone.get('norm_cfg') or {}):
        backbone['norm_cfg']['requires_grad'] = True
    return backbone


def _term(method: str) -> dict[str, Any]:
    """Return the term of a method's preset; it has no loss to measure its share against."""
    term = preset_of(method).terms.to_dict().get(method) or {}
    if 'gradient_share' not in term:
        raise UserError(f'--method {method} is no method of pretraining: take foundation, '
                        'foundation_pkd or foundation_l2')
    del term['gradient_share']
    return term


def _teacher_tap(name: str, model: Mapping[str, Any]) -> str:
    if not model.get('backbone'):
        return 'features'
    try:
        return f"backbone{_last(model['backbone'])}"
    except UserError as error:
        raise UserError(f"teacher '{name}': {error}") from error


def _last(backbone: Mapping[str, Any]) -> str:
    """Return the tap, behind that of the backbone, of its last and coarsest map.

    Raises:
        UserError: it has none.
    """
    with torch.random.fork_rng(devices=[]):
        network = MODELS.build({**backbone, 'init_cfg': None} if 'init_cfg' in backbone
                               else backbone)
    if not hasattr(network, 'last_stage'):
        return ':-1'  # of a detector's backbone, which gives its maps
    if network.last_stage is None:
        raise UserError(f"the network {backbone['type']} gives no feature maps: take another")
    return f'.{network.last_stage}'
