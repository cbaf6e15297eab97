"""What every network of the classification wing has in common: its parts and their names."""

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmkd.registry import MODELS

__all__ = ['ReluStage', 'TappedNetwork', 'conv_bn', 'init_convolutions', 'register_name',
           'shuffle_channels']


class TappedNetwork(BaseModule):
    """A network whose intermediate values are the outputs of modules of the same names.

    ==================  ==========================================================
    ``stem``            what precedes the first stage
    ``stage1`` ...      one per resolution (see each family), after its last ReLU
    ``stage1.preact``   the same value before that ReLU
    ``final``           the last 1x1 convolution, in the families that have one
    ``embedding``       globally pooled, ``(B, out_channels)``
    ==================  ==========================================================

    No module changes its input in place, so a recorded value stays what it was.

    Args:
        stem: ``(B, 3, H, W)`` to the first feature map.
        stages: the stages, finest first; each has a submodule ``preact``.
        out_channels: channels of the embedding.
        final: what lies between the last stage and the pooling.
    """

    def __init__(self, stem: nn.Module, stages: Sequence[nn.Module], out_channels: int,
                 final: nn.Module | None = None) -> None:
        super().__init__()
        self.num_stages = len(stages)
        self.out_channels = out_channels
        self.stem = stem
        for number, stage in enumerate(stages, 1):
            self.add_module(f'stage{number}', stage)
        self.final = final
        self.embedding = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

    @property
    def last_stage(self) -> str:
        """The name of the last stage."""
        return f'stage{self.num_stages}'

    def forward(self, images: Tensor) -> Tensor:
        """Embed ``(B, 3, H, W)`` as ``(B, out_channels)``."""
        feature = self.stem(images)
        for number in range(1, self.num_stages + 1):
            feature = getattr(self, f'stage{number}')(feature)
        if self.final is not None:
            feature = self.final(feature)
        return self.embedding(feature)


class ReluStage(nn.Module):
    """Blocks that end before their last ReLU, which the stage applies after each.

    The value before the last one passes through ``preact``, so that both can be tapped.

    Args:
        blocks: modules from feature map to feature map.
        activation: what stands for the ReLU.
    """

    def __init__(self, blocks: Sequence[nn.Module],
                 activation: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.preact = nn.Identity()
        self.activation = activation

    def forward(self, feature: Tensor) -> Tensor:
        """Return the feature map after the last ReLU."""
        last = len(self.blocks) - 1
        for number, block in enumerate(self.blocks):
            feature = block(feature)
            if number < last:
                feature = self.activation(feature)
        return self.activation(self.preact(feature))


def conv_bn(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1,
            bias: bool = False) -> list[nn.Module]:
    """Return a convolution that keeps the size (at stride 1) and its batch norm."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups,
                     bias=bias)
    return [conv, nn.BatchNorm2d(out_channels)]


def shuffle_channels(feature: Tensor, groups: int) -> Tensor:
    """Interleave the channels of ``groups`` groups: ``(B, C, H, W)`` of the same shape."""
    return feature.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


def init_convolutions(network: nn.Module) -> None:
    """Draw every kernel from ``N(0, 2 / (k^2 C_out))`` and set every bias to 0.

    He et al., Delving Deep into Rectifiers, ICCV 2015 (arXiv 1502.01852), in the direction of the
    gradient. Batch norms start at 1 and 0 by themselves.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def register_name(name: str, network: type[TappedNetwork], **options: Any) -> None:
    """Let a config say ``type=name`` for ``network`` with ``options``."""
    def build(init_cfg: dict | None = None, **more: Any) -> TappedNetwork:
        built = network(**options, **more)
        built.init_cfg = init_cfg
        return built

    build.__name__ = build.__qualname__ = name
    MODELS.register_module(name=name, module=build)
