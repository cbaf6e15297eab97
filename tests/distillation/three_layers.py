"""A student of three layers for runs, and a loss of its features."""

import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import nn

import mmkd  # noqa: F401
from mmkd.registry import MODELS


@MODELS.register_module()
class ThreeLayers(BaseModel):
    """Of images (B, 3, 64, 64); `passes` has mode, `training` and inputs of each run."""

    def __init__(self, dropout=0.0):
        super().__init__(dict(type='DetDataPreprocessor', mean=[120.0] * 3, std=[60.0] * 3))
        self.conv, self.norm = nn.Conv2d(3, 4, 8, stride=8), nn.BatchNorm2d(4)
        self.drop, self.last = nn.Dropout(dropout), nn.Conv2d(4, 4, 1)
        self.passes = []

    def forward(self, inputs, data_samples=None, mode='tensor'):
        self.passes.append((mode, self.drop.training, inputs))
        out = self.last(self.drop(self.norm(self.conv(inputs)).relu()))
        if mode == 'loss':
            assert all(len(sample.gt_instances) for sample in data_samples)
            return dict(loss_own=out.square().mean())
        return out


@MODELS.register_module()
class MeanSquare(nn.Module):
    def forward(self, student, teacher):
        return F.mse_loss(student, teacher.detach())
