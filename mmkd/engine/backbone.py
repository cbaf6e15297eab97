"""Another backbone in a detector's config: ``--backbone timm:resnet18``."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.config import Config

from mmkd.errors import UserError
from mmkd.registry import MODELS
from mmkd.timm_networks import TIMM

__all__ = ['use_backbone']

SIDE = 128
"""Of the image by which a backbone's strides are seen."""


def use_backbone(cfg: Config, text: str) -> None:
    """Put a network of timm in the place of a detector's backbone.

    It gives maps of the same strides, and the neck gets their numbers of channels.

    Args:
        cfg: of a detector with a neck; changed.
        text: ``timm:NAME``.

    Raises:
        UserError: the text does not begin with ``timm:``, timm or the network is not there, the
            network lacks a stride, or the neck does not say that it takes the backbone's maps.
    """
    if not text.startswith(TIMM):
        raise UserError(f"--backbone {text}: give a network of timm, as in {TIMM}resnet18; other "
                        'backbones are chosen by --cfg-options model.backbone.type=...')
    name, model = text.removeprefix(TIMM), cfg.model
    necks = model.get('neck')
    neck = necks[0] if isinstance(necks, (list, tuple)) and necks else necks
    if not isinstance(neck, Mapping) or 'in_channels' not in neck or not model.get('backbone'):
        raise UserError(f"--backbone {text}: the model of '{cfg.filename}' has no neck whose "
                        'in_channels say what the backbone gives: name a config with one')
    strides, channels = _maps(model.backbone)
    new = MODELS.build(dict(type='TimmBackbone', name=name))
    at = {stride: i for i, stride in enumerate(new.strides)}  # of several as fine, the last
    if missing := [stride for stride in strides if stride not in at]:
        raise UserError(f"--backbone {text} has maps of stride {_listed(new.strides)}, and "
                        f"'{cfg.filename}' needs {_listed(strides)}: take a network that has "
                        f'{_listed(missing)}, too')
    indices = [at[stride] for stride in strides]
    taken = _in_channels(neck['in_channels'], channels, [new.channels[i] for i in indices])
    if taken is None:
        raise UserError(f"--backbone {text}: the neck of '{cfg.filename}' takes "
                        f"in_channels={neck['in_channels']}, and its backbone gives {channels}: "
                        'make them agree')
    neck['in_channels'] = taken
    model.backbone = dict(type='TimmBackbone', name=name, out_indices=indices)


def _in_channels(old: int | Sequence[int], given: list[int], new: list[int]
                 ) -> int | list[int] | None:
    """Return what a neck that took ``old`` of ``given`` takes of ``new``; None if it is unclear."""
    if isinstance(old, int):  # of the last map
        return new[-1] if old == given[-1] else None
    return {tuple(given[::-1]): new[::-1], tuple(given): new}.get(tuple(old))


def _maps(backbone: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    """Return the strides and the numbers of channels of a backbone's maps."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        network = MODELS.build({**backbone, 'init_cfg': None})
        network.eval()
        maps = network(torch.zeros(1, 3, SIDE, SIDE))
    return [SIDE // one.shape[-1] for one in maps], [one.shape[1] for one in maps]


def _listed(strides: Sequence[int]) -> str:
    return ', '.join(map(str, dict.fromkeys(strides)))
