"""Networks of timm as classifiers."""

from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmkd.registry import MODELS
from mmkd.timm_networks import create, load_published

__all__ = ['TimmNetwork']


@MODELS.register_module()
class TimmNetwork(BaseModule):
    """A network of timm without its classifier, which embeds ``(B, 3, H, W)``.

    ``type='timm:resnet18'`` is short for it. What can be tapped is called as in mmkd's own
    networks, but for ``preact`` and ``final``: ``stem`` is the map of stride 2 or less, if there is
    one, ``stage1`` and so on are those after it, ``embedding`` is what the classifier gets. Of a
    vision transformer a stage is a block, its tokens laid out as a map. Any module of timm's can be
    tapped as well, ``network.layer1.0.conv1``.

    Args:
        name: as timm has it.
        checkpoint: a file of weights that timm publishes, read when training begins; None for
            random ones.
        options: of ``timm.create_model``.

    Raises:
        UserError: timm is not installed, or has no such network.
    """

    def __init__(self, name: str, checkpoint: str | None = None, **options: Any) -> None:
        super().__init__()
        self.network = create(name, num_classes=0, **options)
        self.checkpoint = checkpoint
        self.out_channels = getattr(self.network, 'head_hidden_size', self.network.num_features)
        self._levels = self._level_names()
        for level in self._levels:
            self.add_module(level, nn.Identity())
        self.embedding = nn.Identity()

    @property
    def classifier(self) -> str:
        """What timm calls the layer that :class:`Classifier` has as ``head.fc``."""
        name = self.network.default_cfg['classifier']
        return name if isinstance(name, str) else name[0]  # of distilled ones, which have two

    @property
    def last_stage(self) -> str | None:
        """The name of the last map; None of a network that gives none."""
        return self._levels[-1] if self._levels else None

    def init_weights(self) -> None:
        """Load the checkpoint; timm has drawn its weights already."""
        if self.checkpoint is not None:
            load_published(self.network, self.checkpoint)

    def forward(self, images: Tensor) -> Tensor:
        """Embed ``(B, 3, H, W)`` as ``(B, out_channels)``."""
        if not self._levels:
            return self.embedding(self.network(images))
        last, maps = self.network.forward_intermediates(images)
        for level, value in zip(self._levels, maps, strict=True):
            getattr(self, level)(value)
        return self.embedding(self.network.forward_head(last))

    def _level_names(self) -> list[str]:
        """Return a name for each map; none of a network that gives no maps."""
        if not hasattr(self.network, 'forward_intermediates'):
            return []
        names: list[str] = []
        for info in self.network.feature_info:
            is_stem = not names and info['reduction'] <= 2
            names.append('stem' if is_stem else f'stage{len(names) + (names[:1] != ["stem"])}')
        return names
