"""Vision models of Hugging Face's transformers, from a folder on this machine.

transformers is imported when the first one is asked for. Nothing is downloaded, no code of a folder
is run, and weights are read from ``.safetensors``.
"""

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mmkd.errors import UserError, did_you_mean
from mmkd.text_files import read_text

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ['HF', 'converted', 'create', 'normalisation', 'weights_of']

HF = 'hf:'
"""How the name of a model begins that lies in a folder of Hugging Face's: ``hf:dinov2-small``."""
WEIGHTS = 'model.safetensors'
UNUSED = ('pooler', 'head')
"""Parts behind the features, which some published files lack."""


def create(name: str, config: Mapping[str, Any] | None = None) -> 'nn.Module':
    """Build a vision model with random weights; of a model of images and texts its image tower.

    Args:
        name: a folder with ``config.json``; or a class of transformers, if there is a ``config``.
        config: arguments of that class's own config.

    Raises:
        UserError: transformers is not installed, the folder or the class is not there, or it is
            none of a vision model.
    """
    transformers = _transformers()
    try:
        if config is not None:
            network = _class(transformers, name)
            network = network(network.config_class(**config))
        else:
            _check_folder(name)
            described = transformers.AutoConfig.from_pretrained(
                name, local_files_only=True, trust_remote_code=False)
            network = transformers.AutoModel.from_config(
                getattr(described, 'vision_config', described), trust_remote_code=False)
    except UserError:
        raise
    except (ValueError, OSError, LookupError, TypeError, AttributeError, ImportError,
            ZeroDivisionError, RuntimeError) as error:
        raise UserError(f"transformers cannot build '{HF}{name}' ({type(error).__name__}: "
                        f'{_first_line(error)}): give a folder with the config.json of a model '
                        'that this version of transformers has itself') from error
    if network.main_input_name != 'pixel_values':
        raise UserError(f"'{HF}{name}' is a {type(network).__name__}, which takes no images: name "
                        'a vision model')
    return network.float()


def weights_of(folder: str) -> str:
    """Return the path of a folder's weights.

    Raises:
        UserError: the folder or the file is not there.
    """
    _check_folder(folder)
    path = Path(folder, WEIGHTS)
    if not path.is_file():
        raise UserError(f"'{folder}' has no {WEIGHTS}: fetch that file, too; where a model has "
                        'several or only a .bin, load it in Python once and save it anew by '
                        "model.save_pretrained(FOLDER, max_shard_size='100GB')")
    return str(path)


def converted(network: 'nn.Module', state: Mapping[str, 'Tensor']) -> dict[str, 'Tensor']:
    """Return weights under the names that a model has them under; what it lacks is left out.

    transformers renames what older versions of it have saved, and leaves texts aside.

    Args:
        network: from :func:`create`.
        state: of a file.

    Raises:
        UserError: they are of another model.
    """
    from mmkd.random_state import undisturbed_random_state

    logging = _transformers().utils.logging
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with undisturbed_random_state():
            loaded, told = type(network).from_pretrained(
                None, config=network.config, state_dict=dict(state), output_loading_info=True,
                ignore_mismatched_sizes=True)
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"these are no weights of this {type(network).__name__} "
                        f'({_first_line(error)}): give the file of this model') from error
    finally:
        logging.set_verbosity(verbosity)
    if told['mismatched_keys']:
        name, theirs, own = min(told['mismatched_keys'])
        raise UserError(f"'{name}' is of shape {tuple(theirs)} there and {tuple(own)} in this "
                        f'{type(network).__name__}: give the file of this model')
    missing = {name for name in told['missing_keys'] if name.partition('.')[0] not in UNUSED}
    return {name: value for name, value in loaded.state_dict().items() if name not in missing}


def normalisation(folder: str) -> dict[str, Any] | None:
    """Return how images are normalised before a model sees them, None if the folder does not say.

    Returns:
        ``mean`` and ``std`` of R, G and B in pixels from 0 to 255.

    Raises:
        UserError: what the folder says is damaged.
    """
    for name, part in (('preprocessor_config.json', None), ('processor_config.json',
                                                            'image_processor')):
        path = Path(folder, name)
        if not path.is_file():
            continue
        try:
            said = json.loads(read_text(path, 'fetch it again'))
            said = said if part is None else said.get(part)
            return None if said is None else _statistics(said)
        except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"'{path}' does not say how images are normalised ({error}): fetch it "
                            "again, or give the teacher's entry preprocessor=dict(mean=[...], "
                            'std=[...], bgr_to_rgb=True)') from error
    return None


def _statistics(said: Mapping[str, Any]) -> dict[str, Any]:
    scale = float(said.get('rescale_factor', 1 / 255)) if said.get('do_rescale', True) else 1.0
    mean, std = [0.0] * 3, [1.0] * 3
    if said.get('do_normalize', True):
        mean, std = ([float(number) for number in said[key]] for key in ('image_mean', 'image_std'))
    if len(mean) != 3 or len(std) != 3 or not min(std) > 0:
        raise ValueError('image_mean and image_std are not three numbers')
    return dict(mean=[value / scale for value in mean], std=[value / scale for value in std])


def _check_folder(name: str) -> None:
    if not Path(name, 'config.json').is_file():
        raise UserError(f"there is no folder '{name}' with a config.json, and nothing is "
                        'downloaded here: fetch it by `hf download OWNER/MODEL --local-dir FOLDER` '
                        f"and give '{HF}FOLDER'")


def _class(transformers: ModuleType, name: str) -> Any:
    try:
        found = getattr(transformers, name, None)
    except (ImportError, RuntimeError):  # it is imported when it is looked up
        found = None
    if not isinstance(found, type) or not issubclass(found, transformers.PreTrainedModel):
        raise UserError(f"transformers has no model class '{name}'."
                        + did_you_mean(name, [one for one in dir(transformers)
                                              if one.endswith('Model')]))
    return found


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), 'no reason given')


def _transformers() -> ModuleType:
    try:
        return import_module('transformers')
    except ModuleNotFoundError as error:
        missing = (error.name or '').partition('.')[0]
        asked = 'mmkd[transformers]' if missing == 'transformers' else missing
        raise UserError(f'models of Hugging Face need the package {missing}, which is not '
                        f'installed: pip install {asked}') from error
    except (ImportError, RuntimeError, OSError) as error:
        raise UserError(f'transformers cannot be imported ({_first_line(error)}): install a '
                        'version that belongs to your torch') from error
