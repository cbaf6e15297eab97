"""Networks of timm, by name; timm is imported when the first one is asked for."""

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mmkd.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

__all__ = ['TIMM', 'check_name', 'create', 'create_features', 'load_published']

TIMM = 'timm:'
"""How the name of a network begins that is timm's: ``timm:resnet18``."""
MIN_FITTING = 0.9
"""The share of a network that a file of weights has to fit; its classifier may be another."""


def check_name(name: str) -> None:
    """Make sure that timm has a network.

    Args:
        name: as timm has it, ``resnet18``.

    Raises:
        UserError: it has none of that name, the name is one of weights, or timm cannot be imported.
    """
    timm = _timm()
    plain, _, weights = name.partition('.')
    if not timm.is_model(plain):
        raise UserError(f"timm has no network '{plain}'."
                        + (did_you_mean(plain, timm.list_models())
                           or ' `python -c "import timm; print(*timm.list_models())"` lists them'))
    if weights:
        raise UserError(f"'{TIMM}{name}' names weights, '{weights}', and nothing is downloaded: "
                        f"write '{TIMM}{plain}', and give their file as the network's `checkpoint`")


def create(name: str, **options: Any) -> 'nn.Module':
    """Build a network of timm with random weights.

    Args:
        name: as timm has it.
        options: of ``timm.create_model``.

    Raises:
        UserError: as :func:`check_name`.
    """
    check_name(name)
    return _timm().create_model(name, pretrained=False, **options)


def create_features(name: str, **options: Any) -> 'nn.Module':
    """Build a network of timm without its classifier, for images of any size if it can take them.

    Args:
        name: as timm has it; perhaps with a name of weights behind it, whose normalisation
            ``pretrained_cfg`` then has: ``vit_base_patch16_224.dino``.
        options: of ``timm.create_model``.

    Raises:
        UserError: timm is not installed, has no such network or weights, or it takes no such
            option.
    """
    check_name(name.partition('.')[0])
    error: Exception | None = None
    for more in (dict(dynamic_img_size=True), {}):  # transformers alone know this option
        try:
            return _timm().create_model(name, pretrained=False, num_classes=0, **more, **options)
        except (TypeError, RuntimeError, ValueError, AssertionError) as caught:
            error = caught
    raise UserError(f"timm cannot build '{name}' ({error}): correct the name or its options")


def load_published(network: 'nn.Module', file: str) -> None:
    """Fill a network of timm with weights that timm publishes.

    Args:
        network: from :func:`create`; perhaps without its classifier, or cut off behind a stage.
        file: on this machine, ``.safetensors`` or ``.pth``.

    Raises:
        UserError: the file is missing, damaged, would run code, or is of another network.
    """
    from mmkd.checkpoints import load_checkpoint_safely

    state = load_checkpoint_safely(file)
    state = state.get('state_dict', state.get('model', state))
    own = network.state_dict()
    fitting = {name: value for name, value in own.items() if _fits(state, name, value)}
    if len(fitting) < MIN_FITTING * len(own):
        raise UserError(f"'{file}' fits {len(fitting)} of the {len(own)} entries of timm's "
                        f"{type(network).__name__}, whose first is '{next(iter(own))}' while the "
                        f"file's is '{next(iter(state), None)}': give the file of this network")
    network.load_state_dict({name: state[name] for name in fitting}, strict=False)


def _fits(state: Mapping[str, Any], name: str, value: Any) -> bool:
    return getattr(state.get(name), 'shape', None) == value.shape


def _timm() -> ModuleType:
    try:
        return import_module('timm')
    except ModuleNotFoundError as error:
        missing = (error.name or '').partition('.')[0]
        raise UserError(f'networks of timm need the package {missing}, which is not installed: '
                        f'pip install {"mmkd[timm]" if missing == "timm" else missing}') from error
    except (ImportError, RuntimeError, OSError) as error:
        raise UserError(f'timm cannot be imported ({str(error).strip().splitlines()[0]}): install '
                        'the torchvision that belongs to your torch') from error
