"""Teachers that are a backbone alone, by name: of timm, or of Hugging Face's transformers.

::

    teachers = dict(
        dino=dict(model='timm:vit_small_patch14_dinov2', checkpoint='dinov2.safetensors'),
        clip=dict(model='hf:clip-vit-base-patch32'))  # a folder, with config and weights

Such a teacher knows by itself how its inputs are normalised and what sizes it takes. What it knows
of an image is the map ``features``, ``(B, C, h, w)``: its last tokens, without class token and
registers, or the output of its last stage.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.model import ImgDataPreprocessor
from torch import Tensor, nn

from mmkd import hugging_face, timm_networks
from mmkd.distillation.losses import InputError
from mmkd.distillation.teacher_connectors import TokensToMap
from mmkd.errors import UserError
from mmkd.hugging_face import HF
from mmkd.registry import MODELS
from mmkd.timm_networks import TIMM

__all__ = ['FEATURES', 'FoundationModel', 'HuggingFaceModel', 'TimmModel', 'is_foundation',
           'spelled_out']

FEATURES = 'features'
"""The tap of every such teacher."""


class FoundationModel(nn.Module):
    """A vision model, called with images; :data:`FEATURES` passes its last features as a map.

    Args:
        network: the model.
        statistics: ``mean`` and ``std`` of its inputs, in pixels from 0 to 255, RGB; None if they
            are not known.
        multiple_of: what height and width of its inputs are rounded up to multiples of.
        size: height and width of its inputs, if it takes no other.
    """

    def __init__(self, network: nn.Module, statistics: Mapping[str, Sequence[float]] | None,
                 multiple_of: int | None, size: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.network = network
        self.data_preprocessor = (None if statistics is None else
                                  ImgDataPreprocessor(**statistics, bgr_to_rgb=True))
        self.multiple_of = multiple_of
        self.size = size
        self.features = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Return the map ``(B, C, h, w)`` of ``(B, 3, H, W)``.

        Raises:
            UserError: the model does not take this size.
        """
        try:
            return self.features(self.map_of(images))
        except (ValueError, AssertionError) as error:
            height, width = images.shape[-2:]
            raise UserError(f'{type(self.network).__name__} does not take images of {height} x '
                            f"{width} px ({error}): give the teacher's entry "
                            'size=(H, W)') from error

    def map_of(self, images: Tensor) -> Tensor:
        """Return the map; a subclass computes it."""
        raise NotImplementedError


@MODELS.register_module()
class TimmModel(FoundationModel):
    """A network of timm; ``model='timm:vit_small_patch14_dinov2'`` of a teacher is short for it.

    Args:
        name: as timm has it. Weights may differ in how their images were normalised: with their
            name behind it, ``vit_base_patch16_224.dino``, it is as for these.
        options: of ``timm.create_model``.

    Raises:
        UserError: timm is not installed, or has no such network, or it gives no maps.
    """

    def __init__(self, name: str, **options: Any) -> None:
        network = timm_networks.create_features(name, **options)
        if not hasattr(network, 'forward_intermediates'):
            raise UserError(f"timm's {name} gives no feature maps: take another network")
        said = network.pretrained_cfg
        # Tokens have a norm behind the last block.
        self._has_tokens = getattr(network, 'num_prefix_tokens', None) is not None
        fixed = said.get('fixed_input_size') and not getattr(network, 'dynamic_img_size', False)
        super().__init__(
            network, {key: [255 * value for value in said[key]] for key in ('mean', 'std')},
            _side(getattr(getattr(network, 'patch_embed', None), 'patch_size', None)),
            tuple(said['input_size'][-2:]) if fixed else None)
        self._options = dict(indices=1, output_fmt='NCHW', intermediates_only=True,
                             norm=self._has_tokens)

    def map_of(self, images: Tensor) -> Tensor:
        """Return the last tokens behind their norm, or the last stage."""
        return self.network.forward_intermediates(images, **self._options)[-1]

    def convert_state_dict(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename weights that timm publishes, and leave out their classifier."""
        names = self.network.pretrained_cfg.get('classifier') or ()
        classifier = tuple(f'{name}.' for name in ([names] if isinstance(names, str) else names))
        own = self.network.state_dict()
        return {f'network.{name}': value for name, value in state.items()
                if name in own or not classifier or not name.startswith(classifier)}


@MODELS.register_module()
class HuggingFaceModel(FoundationModel):
    """A vision model of transformers; ``model='hf:FOLDER'`` of a teacher is short for it.

    Of a model of images and texts, such as CLIP, it is the image tower.

    Args:
        name: a folder as ``save_pretrained`` writes it; or, with a ``config``, a class of
            transformers, ``'Dinov2Model'``.
        config: arguments of that class's config, ``dict(hidden_size=384)``.

    Raises:
        UserError: transformers is not installed, the folder is not there, or it is none of a
            vision model.
    """

    def __init__(self, name: str, config: Mapping[str, Any] | None = None) -> None:
        network = hugging_face.create(name, None if config is None else dict(config))
        super().__init__(network, None if config else hugging_face.normalisation(name),
                         _side(getattr(network.config, 'patch_size', None)))
        asked = inspect.signature(network.forward).parameters
        self._options = ({'interpolate_pos_encoding': True}
                         if 'interpolate_pos_encoding' in asked else {})

    def map_of(self, images: Tensor) -> Tensor:
        """Return the last hidden state as a map."""
        found = self.network(images, **self._options).last_hidden_state
        return found if found.dim() == 4 else _laid_out(found, images.shape[-2:], self.multiple_of)

    def convert_state_dict(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename weights as transformers does."""
        found = hugging_face.converted(self.network, state)
        return {f'network.{name}': value for name, value in found.items()}


KINDS = {TIMM: 'TimmModel', HF: 'HuggingFaceModel'}


def is_foundation(model: Any) -> bool:
    """Tell whether a teacher's ``model`` is a backbone alone, by name or spelled out."""
    if isinstance(model, str):
        return model.startswith(tuple(KINDS))
    return isinstance(model, Mapping) and model.get('type') in KINDS.values()


def spelled_out(teacher: str, entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an entry of ``teachers`` with its ``model`` as a dict, and its ``checkpoint``.

    Raises:
        UserError: ``model`` is a name of another kind, a folder lacks its weights, or no file of
            them is named.
    """
    model = entry.get('model')
    if not isinstance(model, str):
        return entry
    kind = next((prefix for prefix in KINDS if model.startswith(prefix)), None)
    name = model.removeprefix(kind or '')
    if kind is None or not name:
        raise UserError(f"teacher '{teacher}' has model={model!r}: give '{TIMM}NAME', "
                        f"'{HF}FOLDER' or dict(type='package.module.Class')")
    weights = dict(checkpoint=hugging_face.weights_of(name)) if (
        kind == HF and 'checkpoint' not in entry) else {}
    if not weights and 'checkpoint' not in entry:
        raise UserError(f"teacher '{teacher}': nothing is downloaded, so give the file of its "
                        f'weights, too: `--teacher {model}=weights.safetensors`, or `checkpoint`')
    return {**entry, **weights, 'model': dict(type=KINDS[kind], name=name)}


def _side(patch: Any) -> int | None:
    """Return the side of a patch, given as one number or as height and width."""
    return max(patch) if isinstance(patch, list | tuple) else patch


def _laid_out(tokens: Tensor, size: Sequence[int], patch: int | None) -> Tensor:
    """Return tokens ``(B, n, C)`` as a map; those before the patches' are left out."""
    count = tokens.shape[1]
    patches = (size[0] // patch) * (size[1] // patch) if patch else count
    try:  # a hierarchical network has fewer than patches, and no others
        return TokensToMap(max(count - patches, 0))(tokens, size)
    except InputError as error:
        raise UserError(f'the last features of this teacher are no grid of patches ({error}): take '
                        'another model') from error
