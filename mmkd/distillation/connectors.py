"""Trainable adapters from the student's feature space to a teacher's.

A connector belongs to a run, not to the student: it is trained with the student, saved
beside it in the checkpoint, and gone from the deployed model.
"""

from torch import Tensor, nn

from mmkd.registry import MODELS

__all__ = ['ConvConnector']


@MODELS.register_module()
class ConvConnector(nn.Module):
    """A 1x1 convolution: ``(B, C_s, H, W) -> (B, C_t, H, W)``.

    Args:
        student_channels: ``C_s``, the student's channels.
        teacher_channels: ``C_t``, the teacher's.
    """

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(student_channels, teacher_channels, 1)
        nn.init.kaiming_normal_(self.conv.weight, mode='fan_out', nonlinearity='linear')
        nn.init.zeros_(self.conv.bias)

    def forward(self, student: Tensor) -> Tensor:
        """Adapt ``(B, C_s, H, W)`` to ``(B, C_t, H, W)``."""
        return self.conv(student)
