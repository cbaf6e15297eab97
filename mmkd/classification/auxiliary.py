"""Classifiers on the shallow stages of a network, for the time of training."""

from collections.abc import Sequence

from torch import Tensor, nn

from mmkd.errors import UserError
from mmkd.registry import MODELS

__all__ = ['AuxiliaryClassifiers', 'Bottleneck']


class Bottleneck(nn.Sequential):
    """Bring a shallow map to the shape of the deepest one: ``(B, C, H, W) -> (B, D, H', W')``.

    A 1x1 convolution to ``D / 4`` channels, one whose kernel and stride are ``(H // H', W // W')``,
    and a 1x1 convolution to ``D``, each with batch norm and ReLU.

    Args:
        in_channels: ``C``.
        out_channels: ``D``.
        stride: ``(H // H', W // W')``.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: tuple[int, int]) -> None:
        width = max(out_channels // 4, 1)
        super().__init__(*_conv_bn_relu(in_channels, width),
                         *_conv_bn_relu(width, width, stride),
                         *_conv_bn_relu(width, out_channels))


@MODELS.register_module()
class AuxiliaryClassifiers(nn.Module):
    """A classifier behind every stage but the last: bottleneck, global average pooling, linear.

    For the taps ``['backbone.stage?', 'backbone.embedding', 'head.fc']``, that is the stages from
    shallow to deep, the embedding and the logits. As every connector the classifiers belong to the
    run: the trained network has no trace of them.

    Source: L. Zhang et al., "Be Your Own Teacher: Improve the Performance of Convolutional Neural
    Networks via Self Distillation", ICCV 2019, arXiv 1905.08094; see
    :class:`~mmkd.distillation.losses.BYOTLoss`. The paper says that a bottleneck and a linear layer
    follow every shallow block; the layout of the bottleneck, its width and that its convolution
    has a kernel as large as its stride are those of the usual reimplementation.

    Args:
        student_channels: channels of the stages, of the embedding, and the number of classes.
        student_size: ``(H, W)`` of the stages, then ``()`` twice.

    Raises:
        UserError: these are not the sizes of at least two stages, an embedding and logits.
    """

    multi_level = True

    def __init__(self, student_channels: Sequence[int],
                 student_size: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        if [len(size) for size in student_size[-4:]] != [2, 2, 0, 0]:
            raise UserError('AuxiliaryClassifiers needs at least two stages, the embedding and the '
                            f'logits, not features of sizes {[tuple(s) for s in student_size]}: '
                            "tap ['backbone.stage?', 'backbone.embedding', 'head.fc']")
        *stages, _, embedding, classes = student_channels
        deepest = student_size[-3]
        self.bottlenecks = nn.ModuleList(
            Bottleneck(channels, embedding, _stride(size, deepest))
            for channels, size in zip(stages, student_size, strict=False))
        self.classifiers = nn.ModuleList(nn.Linear(embedding, classes) for _ in stages)

    def forward(self, student: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Return feature ``(B, D)`` and logits ``(B, classes)`` of every shallow stage.

        Args:
            student: what was tapped: the stages, the embedding and the logits.
        """
        outputs = []
        for bottleneck, fc, stage in zip(self.bottlenecks, self.classifiers, student, strict=False):
            feature = bottleneck(stage).mean((2, 3))
            outputs.append((feature, fc(feature)))
        return outputs


def _stride(size: Sequence[int], deepest: Sequence[int]) -> tuple[int, int]:
    height, width = (max(side // last, 1) for side, last in zip(size, deepest, strict=True))
    return height, width


def _conv_bn_relu(in_channels: int, out_channels: int,
                  stride: tuple[int, int] = (1, 1)) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, stride, stride, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode='fan_out', nonlinearity='relu')
    return [conv, nn.BatchNorm2d(out_channels), nn.ReLU()]
