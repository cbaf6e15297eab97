"""What the losses on features share."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkd.distillation.losses._errors import InputError


def unit(vectors: Tensor, dim: int) -> Tensor:
    """Divide vectors along ``dim`` by their L2 norm; a zero vector stays zero, without gradient.

    ``F.normalize`` gives a zero vector the gradient of ``x / 1e-12``: finite, and the
    end of the training.
    """
    norm = torch.linalg.vector_norm(vectors, dim=dim, keepdim=True)
    return vectors / norm.masked_fill(norm <= 1e-12, math.inf)


def at_smaller_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Average-pool the larger of two maps ``(B, C, H, W)`` to the height and width of the smaller.

    Raises:
        InputError: one is not four-dimensional or the batches differ.
    """
    check_maps(student, teacher)
    size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
    return _pooled(student, size), _pooled(teacher, size)


def channel_statistics(feature: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and unbiased standard deviation of each channel over ``(B, H, W)``.

    Both ``(1, C, 1, 1)``. A channel that is constant has the deviation 1e-6, without gradient.
    """
    mean = feature.mean((0, 2, 3), keepdim=True)
    count = max(feature[:, 0].numel() - 1, 1)
    variance = (feature - mean).square().sum((0, 2, 3), keepdim=True) / count
    # The square root has no finite slope at 0, hence the bound.
    return mean, variance.clamp(min=1e-12).sqrt()


def check_maps(student: Tensor, teacher: Tensor) -> None:
    """Check that two features are maps ``(B, C, H, W)`` of the same batch.

    Raises:
        InputError: they are not.
    """
    if student.dim() != 4 or teacher.dim() != 4 or student.shape[0] != teacher.shape[0]:
        raise InputError(f'a student feature of shape {tuple(student.shape)} cannot be compared '
                         f'with a teacher feature of shape {tuple(teacher.shape)}: tap maps of '
                         '(batch, channels, height, width) in both, of the same batch')


def check_same_shape(student: Tensor, teacher: Tensor, loss: str,
                     connector: str = 'ConvConnector') -> None:
    """Check that two features are maps ``(B, C, H, W)`` of one shape.

    Args:
        student: the student's.
        teacher: the teacher's.
        loss: name of the loss that asks.
        connector: name of what brings the student to the teacher's channels.

    Raises:
        InputError: they are not.
    """
    if student.dim() != 4 or student.shape != teacher.shape:
        raise InputError(f'{loss} compares maps (batch, channels, height, width) of one shape, '
                         f'not {tuple(student.shape)} of the student and {tuple(teacher.shape)} '
                         'of the teacher: tap maps of the same stride, and give the term '
                         f"connector=dict(type='{connector}') if their channels differ")


def _pooled(feature: Tensor, size: tuple[int, int]) -> Tensor:
    return feature if feature.shape[2:] == size else F.adaptive_avg_pool2d(feature, size)
