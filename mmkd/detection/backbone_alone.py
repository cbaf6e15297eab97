"""A backbone without anything behind it, while it is pretrained."""

from collections.abc import Mapping
from typing import Any

from mmengine.model import BaseModel
from torch import Tensor

from mmkd.registry import MODELS

__all__ = ['BackboneAlone']


@MODELS.register_module()
class BackboneAlone(BaseModel):
    """A backbone of a detector or a classifier, which has no loss of its own.

    Args:
        backbone: registry config.
        data_preprocessor: registry config.
    """

    def __init__(self, backbone: Mapping[str, Any], data_preprocessor: dict | None = None,
                 init_cfg: dict | None = None) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.backbone = MODELS.build(backbone)

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = 'tensor') -> Any:
        """Return what the backbone gives for ``(B, 3, H, W)``, whatever the mode."""
        return self.backbone(inputs)
