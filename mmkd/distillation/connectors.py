"""Trainable adapters from the student's feature space to a teacher's.

A connector belongs to a run, not to the student: it is trained with the student, saved
beside it in the checkpoint, and gone from the deployed model. Channels and sizes need not stand
in a config; they are found by a dry run, or, where they may change, in every step.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmkd.errors import UserError
from mmkd.registry import MODELS

__all__ = ['AlignConnector', 'ConvConnector', 'LinearConnector', 'MLPConnector', 'OFDConnector',
           'RegressorConnector', 'ReviewConnector']

Size = tuple[int, ...]


@MODELS.register_module()
class ConvConnector(nn.Module):
    """A 1x1 convolution: ``(B, C_s, H, W) -> (B, C_t, H, W)``.

    Args:
        student_channels: ``C_s``.
        teacher_channels: ``C_t``.
    """

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(student_channels, teacher_channels, 1)
        nn.init.kaiming_normal_(self.conv.weight, mode='fan_out', nonlinearity='linear')
        nn.init.zeros_(self.conv.bias)

    def forward(self, student: Tensor) -> Tensor:
        """Adapt ``(B, C_s, H, W)`` to ``(B, C_t, H, W)``."""
        _check_is_map(self, student, self.conv.out_channels)
        return self.conv(student)


@MODELS.register_module()
class AlignConnector(nn.Module):
    """A 1x1 convolution where the channels differ, and nothing where they do not.

    Args:
        student_channels: ``C_s``.
        teacher_channels: ``C_t``.
    """

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        self.adapt = (nn.Identity() if student_channels == teacher_channels else
                      ConvConnector(student_channels, teacher_channels))

    def forward(self, student: Tensor) -> Tensor:
        """Adapt ``(B, C_s, H, W)`` to ``(B, C_t, H, W)``."""
        return self.adapt(student)


@MODELS.register_module()
class LinearConnector(nn.Module):
    """One linear layer, or two with a ReLU between: ``(B, C_s) -> (B, C_t)``.

    Args:
        student_channels: ``C_s``.
        teacher_channels: ``C_t``.
        hidden_channels: width between two layers; None for a single layer.
    """

    def __init__(self, student_channels: int, teacher_channels: int,
                 hidden_channels: int | None = None) -> None:
        super().__init__()
        self.teacher_channels = teacher_channels
        if hidden_channels is None:
            self.layers = nn.Sequential(nn.Linear(student_channels, teacher_channels))
        else:
            self.layers = nn.Sequential(nn.Linear(student_channels, hidden_channels), nn.ReLU(),
                                        nn.Linear(hidden_channels, teacher_channels))

    def forward(self, student: Tensor) -> Tensor:
        """Adapt ``(B, C_s)`` to ``(B, C_t)``."""
        if student.dim() != 2:
            raise UserError(f'LinearConnector joins embeddings (batch, channels) to embeddings '
                            f'(batch, {self.teacher_channels}), not a student feature of shape '
                            f'{tuple(student.shape)}: tap embeddings, or use ConvConnector for '
                            'maps')
        return self.layers(student)


@MODELS.register_module()
class MLPConnector(nn.Module):
    """A 1x1 convolution, ReLU, a 1x1 convolution: ``(B, C_s, H, W) -> (B, C_t, H, W)``.

    Source: the projector of Ultralytics YOLO's distillation, see
    :class:`~mmkd.distillation.losses.ScoreWeightedL2Loss`; PyTorch's initial weights, as there.

    Args:
        student_channels: ``C_s``.
        teacher_channels: ``C_t``, also of the hidden layer.
    """

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        self.teacher_channels = teacher_channels
        self.layers = nn.Sequential(nn.Conv2d(student_channels, teacher_channels, 1), nn.ReLU(),
                                    nn.Conv2d(teacher_channels, teacher_channels, 1))

    def forward(self, student: Tensor) -> Tensor:
        """Adapt ``(B, C_s, H, W)`` to ``(B, C_t, H, W)``."""
        _check_is_map(self, student, self.teacher_channels)
        return self.layers(student)


@MODELS.register_module()
class RegressorConnector(nn.Module):
    """A convolution that also changes the size, batch norm, ReLU.

    ``(B, C_s, H_s, W_s) -> (B, C_t, H_t, W_t)`` by a 3x3 convolution of stride 2 where the
    student's map is twice as large, a 4x4 transposed convolution of stride 2 where it is half as
    large, and a convolution of ``1 + H_s - H_t`` by ``1 + W_s - W_t`` without padding where it is
    otherwise not smaller (1x1 for equal sizes).

    Source: the regressor of FitNets (A. Romero et al., ICLR 2015, arXiv 1412.6550) in the form
    that RepDistiller gave it.

    Args:
        student_channels: ``C_s``.
        teacher_channels: ``C_t``.
        student_size: ``(H_s, W_s)``.
        teacher_size: ``(H_t, W_t)``.

    Raises:
        UserError: the sizes are not those of maps, or the student's is smaller and not by half.
    """

    def __init__(self, student_channels: int, teacher_channels: int, student_size: Size,
                 teacher_size: Size) -> None:
        super().__init__()
        self.conv = _resizing_conv(student_channels, teacher_channels, tuple(student_size),
                                   tuple(teacher_size))
        self.bn = nn.BatchNorm2d(teacher_channels)
        self.relu = nn.ReLU()

    def forward(self, student: Tensor) -> Tensor:
        """Adapt ``(B, C_s, H_s, W_s)`` to ``(B, C_t, H_t, W_t)``."""
        return self.relu(self.bn(self.conv(student)))


@MODELS.register_module()
class OFDConnector(nn.Module):
    """A 1x1 convolution without bias and batch norm: ``(B, C_s, H, W) -> (B, C_t, H, W)``.

    Source: B. Heo et al., "A Comprehensive Overhaul of Feature Distillation", ICCV 2019, arXiv
    1904.01866; see :class:`~mmkd.distillation.losses.OFDLoss`. Their
    activation boundaries (:class:`~mmkd.distillation.losses.ABLoss`) have the same.

    Args:
        student_channels: ``C_s``.
        teacher_channels: ``C_t``.
    """

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(student_channels, teacher_channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(teacher_channels)
        nn.init.kaiming_normal_(self.conv.weight, mode='fan_out', nonlinearity='relu')

    def forward(self, student: Tensor) -> Tensor:
        """Adapt ``(B, C_s, H, W)``, before the stage's last ReLU, to ``(B, C_t, H, W)``."""
        _check_is_map(self, student, self.conv.out_channels)
        return self.bn(self.conv(student))


@MODELS.register_module()
class ReviewConnector(nn.Module):
    r"""Attention-based fusion (ABF) of all stages, from the deepest to the finest.

    With ``x_l`` the student's feature reduced to ``C`` channels (1x1 convolution, batch norm) and
    ``y_{l+1}`` what the next deeper stage handed down, resized to ``x_l``,

    ``y_l = a_1 x_l + a_2 y_{l+1}``, ``(a_1, a_2) = sigmoid(conv_{1x1}([x_l, y_{l+1}]))`` per cell

    and ``y_l = x_l`` at the deepest stage. ``y_l`` is resized to the teacher's map, handed on,
    and a 3x3 convolution with batch norm takes it to the teacher's channels. Resizing is nearest;
    ``C = min(512, channels of the student's deepest feature)``. A ``(B, C)`` embedding is
    treated as a 1x1 map. No weight depends on a size, so that sizes may differ from batch to
    batch, as in multi-scale training.

    Source: P. Chen, S. Liu, H. Zhao, J. Jia, "Distilling Knowledge via Knowledge Review", CVPR
    2021, arXiv 2104.09044; ``C`` and the initial weights as in its code and mdistiller.

    Args:
        student_channels: channels of the student's features, finest first.
        teacher_channels: channels of the teacher's.
    """

    multi_level = True

    def __init__(self, student_channels: Sequence[int], teacher_channels: Sequence[int]) -> None:
        super().__init__()
        mid = min(512, student_channels[-1])
        self.reduce = nn.ModuleList(_conv_bn(channels, mid, 1) for channels in student_channels)
        self.attend = nn.ModuleList(nn.Conv2d(2 * mid, 2, 1) for _ in student_channels[:-1])
        self.expand = nn.ModuleList(_conv_bn(mid, channels, 3) for channels in teacher_channels)

    def forward(self, student: Sequence[Tensor], teacher_size: Sequence[Size]) -> list[Tensor]:
        """Adapt features ``(B, C_s, ...)`` to ``(B, C_t, ...)`` of the teacher's sizes.

        Args:
            student: a feature for each stage, finest first.
            teacher_size: ``(H, W)`` of the teacher's features; ``()`` for an embedding.

        Raises:
            UserError: there are not as many features or sizes as stages, the coarsest comes first,
                or a batch of one sample has nothing to normalise an embedding over.
        """
        if len(student) != len(self.reduce) or len(teacher_size) != len(self.expand):
            raise UserError(f'ReviewConnector was built for {len(self.reduce)} features and got '
                            f'{len(student)} and the sizes of {len(teacher_size)} of the '
                            "teacher's: tap as many layers as in the dry run")
        if student[0].shape[2:].numel() < student[-1].shape[2:].numel():
            raise UserError('ReviewConnector hands features down from the deepest to the finest, '
                            'and the taps of the student begin with the coarsest: name them the '
                            'other way round, such as [neck:2, neck:1, neck:0]')
        sizes = [tuple(size) for size in teacher_size]
        cells = [*(f[0, 0].numel() for f in student), *(math.prod(size) for size in sizes)]
        if self.training and len(student[0]) * min(cells) == 1:
            raise UserError('a batch of one sample is too small for ReviewConnector, which '
                            'normalises embeddings over the batch: use a larger batch, and '
                            'drop_last for the rest')
        outputs: list[Tensor] = []
        deeper = None
        for stage in reversed(range(len(student))):
            fused = self._fuse(stage, student[stage], deeper)
            deeper = _resized(fused, sizes[stage] or (1, 1))
            output = self.expand[stage](deeper)
            outputs.insert(0, output if sizes[stage] else output.flatten(1))
        return outputs

    def _fuse(self, stage: int, feature: Tensor, deeper: Tensor | None) -> Tensor:
        feature = self.reduce[stage](feature if feature.dim() == 4 else feature[:, :, None, None])
        if deeper is None:
            return feature
        deeper = _resized(deeper, feature.shape[2:])
        attention = self.attend[stage](torch.cat([feature, deeper], dim=1)).sigmoid()
        return feature * attention[:, :1] + deeper * attention[:, 1:]


def _resizing_conv(student_channels: int, teacher_channels: int, student: Size,
                   teacher: Size) -> nn.Module:
    if len(student) == len(teacher) == 2:
        if student == tuple(2 * side for side in teacher):
            return nn.Conv2d(student_channels, teacher_channels, 3, stride=2, padding=1)
        if teacher == tuple(2 * side for side in student):
            return nn.ConvTranspose2d(student_channels, teacher_channels, 4, stride=2, padding=1)
        kernel = tuple(1 + s - t for s, t in zip(student, teacher, strict=True))
        if min(kernel) > 0:
            return nn.Conv2d(student_channels, teacher_channels, kernel)
    raise UserError('RegressorConnector cannot join a student feature of shape '
                    f'{("batch", student_channels, *student)} to a teacher feature of shape '
                    f'{("batch", teacher_channels, *teacher)}: tap maps of which the student\'s '
                    "is half as large as the teacher's or not smaller")


def _conv_bn(channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, out_channels, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


def _resized(feature: Tensor, size: Size) -> Tensor:
    if feature.shape[2:] == torch.Size(size):
        return feature
    return F.interpolate(feature, size=tuple(size), mode='nearest')


def _check_is_map(connector: nn.Module, student: Tensor, teacher_channels: int) -> None:
    if student.dim() != 4:
        raise UserError(f'{type(connector).__name__} joins maps (batch, channels, height, width) '
                        f'to maps (batch, {teacher_channels}, height, width), not a student '
                        f'feature of shape {tuple(student.shape)}: tap maps, or use '
                        'LinearConnector for embeddings')
