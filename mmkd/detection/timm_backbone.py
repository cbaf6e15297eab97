"""Networks of timm as backbones of detectors."""

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor

from mmkd.errors import UserError
from mmkd.registry import MODELS
from mmkd.timm_networks import create, load_published

__all__ = ['TimmBackbone']


@MODELS.register_module()
class TimmBackbone(BaseModule):
    """A network of timm that gives its feature maps, finest first.

    Args:
        name: as timm has it, ``resnet18``.
        out_indices: which of its maps; None for all. :attr:`strides` tells how coarse they are.
        checkpoint: a file of weights that timm publishes, read when training begins; None for
            random ones.
        options: of ``timm.create_model``.

    Raises:
        UserError: timm is not installed, or has no such network, or it gives no feature maps.
    """

    def __init__(self, name: str, out_indices: Sequence[int] | None = None,
                 checkpoint: str | None = None, init_cfg: dict | None = None,
                 **options: Any) -> None:
        super().__init__(init_cfg)
        if out_indices is not None:
            options['out_indices'] = tuple(out_indices)
        try:
            self.network = create(name, features_only=True, feature_cls='getter', **options)
        except UserError:
            raise
        except (RuntimeError, AttributeError, AssertionError, TypeError, ValueError,
                IndexError) as error:
            raise UserError(f"timm's {name} gives no feature maps with out_indices={out_indices}, "
                            f'{type(error).__name__}: {error}: take another network, such as '
                            'resnet18') from error
        self.checkpoint = checkpoint

    @property
    def channels(self) -> list[int]:
        """Of every map."""
        return self.network.feature_info.channels()

    @property
    def strides(self) -> list[int]:
        """Of every map, in pixels of the image."""
        return self.network.feature_info.reduction()

    def init_weights(self) -> None:
        """Load the checkpoint; timm has drawn its weights already."""
        if self.checkpoint is not None:
            load_published(self.network.model, self.checkpoint)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the maps of ``(B, 3, H, W)``, each ``(B, C, H / stride, W / stride)``."""
        return tuple(self.network(images))
