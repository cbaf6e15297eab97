"""Trainable adapters from the student's feature space to a teacher's.

A connector belongs to a run, not to the student: it is trained with the student, saved
beside it in the checkpoint, and gone from the deployed model.
"""

from torch import Tensor, nn

from mmkd.errors import UserError
from mmkd.registry import MODELS

__all__ = ['ConvConnector', 'build_connector']


@MODELS.register_module()
class ConvConnector(nn.Module):
    """A 1x1 convolution: ``(B, C_s, H, W) -> (B, C_t, H, W)``.

    Args:
        in_channels: ``C_s``, the student's channels.
        out_channels: ``C_t``, the teacher's.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1)
        nn.init.kaiming_normal_(self.conv.weight, mode='fan_out', nonlinearity='linear')
        nn.init.zeros_(self.conv.bias)

    def forward(self, student: Tensor) -> Tensor:
        """Adapt ``(B, C_s, H, W)`` to ``(B, C_t, H, W)``."""
        return self.conv(student)


def build_connector(config: dict | None, student: Tensor, teacher: Tensor) -> nn.Module | None:
    """Build the connector for a pair of features seen in a dry run.

    Args:
        config: registry config without channel numbers, or None for no connector.
        student: ``(B, C_s, ...)``.
        teacher: ``(B, C_t, ...)``.

    Returns:
        the module, or None where none is configured or the channels already agree.

    Raises:
        UserError: the features have different numbers of dimensions.
    """
    if config is None or student.shape[1] == teacher.shape[1]:
        return None
    if student.dim() != teacher.dim():
        raise UserError(f'no connector can join a student feature of shape {tuple(student.shape)} '
                        f'to a teacher feature of shape {tuple(teacher.shape)}: tap layers of the '
                        'same kind')
    return MODELS.build(dict(config, in_channels=student.shape[1], out_channels=teacher.shape[1]))
