"""The four terms of multi-teacher joint distillation on CenterNet.

``L = L_CenterNet + w1 L_heatmap + w2 L_wh + w3 L_offset + w4 L_attention``, all four weights in
one config line: ``distill_weights = (w1, w2, w3, w4)``.

Source: Liu, Du, She, Yang, Systems Engineering and Electronics 46(4), 2024. It names four weights
``W = (w1, w2, w3, w4)`` and does not say which is which; the order above is this project's reading.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkd.detection.joining import checked_rule, joined
from mmkd.detection.map_codec import MapCodec
from mmkd.detection.teacher_maps import Maps, class_index, final_maps, resampled
from mmkd.distillation.distill_hook import DistillHook, Step, shares
from mmkd.distillation.teachers import Teacher
from mmkd.errors import UserError
from mmkd.registry import HOOKS, MODELS

__all__ = ['AttentionDistillHook', 'HeatmapDistillHook', 'OffsetDistillHook',
           'WidthHeightDistillHook']


class _MapDistillHook(DistillHook):
    """A term on the maps that the head gives.

    Raises:
        UserError: ``weight`` is negative or not a number, ``joint`` is no rule; when the run
            starts, a teacher lacks one of the student's classes.
    """

    loss_type: str

    def __init__(self, weight: float | None = None, joint: str = 'each') -> None:
        super().__init__(dict(type=self.loss_type), tap='bbox_head', weight=weight)
        self.loss = MODELS.build(self.loss_config)
        self.joint = checked_rule(joint, self.name)
        self._class_index: dict[str, list[int] | None] = {}

    def prepare(self, step: Step, dataset: Any) -> None:
        """Find the student's classes among each teacher's; see the base class."""
        classes = getattr(dataset, 'metainfo', {}).get('classes')
        channels = final_maps(step.student[self.tap]).heatmap.shape[1]
        for teacher in step.teachers:
            index = None if classes is None else class_index(classes, teacher.classes, teacher.name)
            theirs = final_maps(step.taps[teacher.name][self.tap]).heatmap.shape[1]
            if index is None and theirs != channels:
                raise UserError(f"teacher '{teacher.name}' has {theirs} classes and the student "
                                f'{channels} ({classes}), and the teacher\'s checkpoint does not '
                                'name its classes: add them as meta.dataset_meta.classes')
            self._class_index[teacher.name] = index

    def stored_as(self, dtype: str) -> MapCodec:
        """Return how a cache stores the teachers' maps; see the base class."""
        return MapCodec(dtype)

    def compute(self, step: Step) -> Tensor:
        """Return the unweighted term; see the base class."""
        own = final_maps(step.student[self.tap])
        targets = [self._target(teacher, step.taps[teacher.name], own.heatmap.shape[-2:])
                   for teacher in step.teachers]
        parts = [share for _, share in shares(step.teachers)]
        if self.joint == 'each':
            terms = [share * self.term(own, target)
                     for share, target in zip(parts, targets, strict=True)]
            return torch.stack(terms).sum()
        return self.term(own, joined(targets, parts, self.joint))

    def _target(self, teacher: Teacher, taps: Mapping[str, Any], size: tuple[int, int]) -> Maps:
        maps = final_maps(taps[self.tap])
        index = self._class_index[teacher.name]
        if index is not None:
            maps = maps._replace(heatmap=maps.heatmap[:, index])
        return resampled(maps, size)

    def term(self, student: Maps, teacher: Maps) -> Tensor:
        """Return the loss of the student's maps against one target."""
        raise NotImplementedError


@HOOKS.register_module()
class HeatmapDistillHook(_MapDistillHook):
    """The heatmap term, w1; see :class:`mmkd.distillation.losses.HeatmapLoss`.

    Args:
        weight: factor of the term, or None for its place in ``distill_weights``.
        joint: how several teachers are joined: ``'each'`` (each teacher's own loss, averaged with
            the teachers' weights), ``'mean'``, ``'max'`` or ``'confidence'``, see
            :func:`mmkd.detection.joining.joined`.
    """

    default_name = 'distill_heatmap'
    position = 0
    loss_type = 'HeatmapLoss'

    def term(self, student: Maps, teacher: Maps) -> Tensor:
        """Return the mean square difference of the heatmaps."""
        return self.loss(student.heatmap, teacher.heatmap)


@HOOKS.register_module()
class WidthHeightDistillHook(_MapDistillHook):
    """The width-height term, w2; see :class:`mmkd.distillation.losses.WidthHeightLoss`.

    Args:
        weight: factor of the term, or None for its place in ``distill_weights``.
        joint: how several teachers are joined: ``'each'`` (each teacher's own loss, averaged with
            the teachers' weights), ``'mean'``, ``'max'`` or ``'confidence'``, see
            :func:`mmkd.detection.joining.joined`.
    """

    default_name = 'distill_wh'
    position = 1
    loss_type = 'WidthHeightLoss'

    def term(self, student: Maps, teacher: Maps) -> Tensor:
        """Return the heatmap-weighted L1 distance of widths and heights, in cells."""
        return self.loss(student.wh, teacher.wh, teacher.heatmap)


@HOOKS.register_module()
class OffsetDistillHook(_MapDistillHook):
    """The offset term, w3; see :class:`mmkd.distillation.losses.OffsetLoss`.

    Args:
        weight: factor of the term, or None for its place in ``distill_weights``.
        joint: how several teachers are joined: ``'each'`` (each teacher's own loss, averaged with
            the teachers' weights), ``'mean'``, ``'max'`` or ``'confidence'``, see
            :func:`mmkd.detection.joining.joined`.
    """

    default_name = 'distill_offset'
    position = 2
    loss_type = 'OffsetLoss'

    def term(self, student: Maps, teacher: Maps) -> Tensor:
        """Return the heatmap-weighted L1 distance of offsets, in cells."""
        return self.loss(student.offset, teacher.offset, teacher.heatmap)


@HOOKS.register_module()
class AttentionDistillHook(DistillHook):
    """The attention term, w4, on the feature that enters the head.

    See :class:`mmkd.distillation.losses.AttentionLoss`. Each teacher has a 1x1 convolution of its
    own where its feature has other channels, and its feature is resampled to the student's
    size. Features of different teachers live in different spaces, so they are never mixed: the
    term is each teacher's own loss, averaged with the teachers' weights.

    Args:
        weight: factor of the term, or None for its place in ``distill_weights``.
        temperature: of both attentions.

    Raises:
        UserError: ``weight`` is negative or not a number.
    """

    default_name = 'distill_attention'
    position = 3

    def __init__(self, weight: float | None = None, temperature: float = 0.5) -> None:
        super().__init__(dict(type='AttentionLoss', temperature=temperature),
                         tap='bbox_head:input', weight=weight,
                         connector=dict(type='ConvConnector'))

    def connector_for(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> dict | None:
        """Return the 1x1 convolution's config where the channels differ; see the base class."""
        return self.connector if student[0].shape[1] != teacher[0].shape[1] else None

    def features(self, step: Step, teacher: Teacher) -> tuple[list[Tensor], list[Tensor]]:
        """Pick the features, the teacher's at the student's size; see the base class."""
        (student, ), (theirs, ) = super().features(step, teacher)
        return [student], [_resized(theirs, student.shape[-2:])]


def _resized(feature: Tensor, size: tuple[int, int]) -> Tensor:
    if feature.shape[-2:] == size:
        return feature
    return F.interpolate(feature, size, mode='bilinear', align_corners=False)
