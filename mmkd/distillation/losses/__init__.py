"""Published distillation losses: tensor math that imports only torch, one per file."""

from mmkd.distillation.losses.attention import AttentionLoss
from mmkd.distillation.losses.heatmap import HeatmapLoss
from mmkd.distillation.losses.weighted_l1 import OffsetLoss, WidthHeightLoss

__all__ = ['AttentionLoss', 'HeatmapLoss', 'OffsetLoss', 'WidthHeightLoss']
