"""The four terms of multi-teacher joint distillation on CenterNet.

``L = L_CenterNet + w1 L_heatmap + w2 L_wh + w3 L_offset + w4 L_feature``, all four weights in
one config line: ``distill_weights = (w1, w2, w3, w4)``.

Source: Liu, Du, She, Yang, Systems Engineering and Electronics 46(4), 2024. It names four weights
``W = (w1, w2, w3, w4)`` and prints neither which is which nor the formulas. So each term takes its
loss from the config; ``configs/_base_/distillation`` has the recommended losses, which are the
defaults here, and the reading that is closest to the source.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkd.detection.joining import JOINING_RULES, checked_rule, joined
from mmkd.detection.map_codec import MapCodec
from mmkd.detection.teacher_maps import Maps, class_index, final_maps, resampled
from mmkd.detection.teacher_shares import SHARE_RULES, fitted, shares_of_images
from mmkd.distillation.cache.codecs import Codec
from mmkd.distillation.distill_hook import DistillHook, Step, shares, unwrapped
from mmkd.distillation.teachers import Teacher
from mmkd.errors import UserError
from mmkd.registry import HOOKS, MODELS

__all__ = ['AttentionDistillHook', 'FeatureDistillHook', 'HeatmapDistillHook',
           'OffsetDistillHook', 'WidthHeightDistillHook']

HEAD = 'bbox_head'


class _MapDistillHook(DistillHook):
    """A term on the maps that the head gives.

    Args:
        loss: registry config of the loss; None for :attr:`default_loss`.
        weight: factor of the term, or None for its place in ``distill_weights``.
        joint: how several teachers are joined. Each teacher's own loss, with a share of each image
            that follows from how well the teacher finds the image's labels (``'labels'``) or how
            sure it is (``'certainty'``), see :mod:`mmkd.detection.teacher_shares`; or with
            the teachers' weights (``'each'``). Or one loss whose target is joined
            (``'mean'``, ``'max'``, ``'confidence'``), see :func:`mmkd.detection.joining.joined`.
        gradient_share: see :class:`DistillHook`.

    Raises:
        UserError: ``weight`` is negative or not a number, ``joint`` is no rule; when the run
            starts, a teacher lacks one of the student's classes.
    """

    default_loss: str

    def __init__(self, loss: dict | None = None, weight: float | None = None,
                 joint: str = 'labels', gradient_share: float | None = None) -> None:
        super().__init__(loss or dict(type=self.default_loss), tap=HEAD, weight=weight,
                         gradient_share=gradient_share)
        self.loss = MODELS.build(self.loss_config)
        self.joint = checked_rule(joint, self.name)
        self._class_index: dict[str, list[int] | None] = {}

    def prepare(self, step: Step, dataset: Any) -> None:
        """Find the student's classes among each teacher's; see the base class."""
        self._class_index = class_indices(step, dataset)

    def stored_as(self, dtype: str) -> dict[str, Codec]:
        """Return how a cache stores the teachers' maps; see the base class."""
        return {HEAD: MapCodec(dtype)}

    def compute(self, step: Step) -> Tensor:
        """Return the unweighted term; see the base class."""
        own = final_maps(step.student[HEAD])
        targets = teacher_maps(step, self._class_index)
        if self.joint not in ('each', *SHARE_RULES):
            parts = [share for _, share in shares(step.teachers)]
            return self.term(own, joined(list(targets.values()), parts, self.joint), None)
        terms = []
        for teacher, share in self.sources(step):
            weights = share if isinstance(share, Tensor) else None
            term = self.term(own, targets[teacher.name], weights)
            terms.append(term if isinstance(share, Tensor) else share * term)
        return torch.stack(terms).sum()

    def sources(self, step: Step) -> list[tuple[Teacher, float | Tensor]]:
        """Return who teaches, with shares by :attr:`joint`; see the base class."""
        return sources(step, self.joint, self._class_index)

    def term(self, student: Maps, teacher: Maps, image_weights: Tensor | None) -> Tensor:
        """Return the loss of the student's maps against one target."""
        raise NotImplementedError


@HOOKS.register_module()
class HeatmapDistillHook(_MapDistillHook):
    """The heatmap term, w1: :class:`~mmkd.distillation.losses.SoftFocalLoss`.

    Args: as of :class:`_MapDistillHook`; ``loss`` may be ``dict(type='HeatmapLoss')``.
    """

    default_name = 'distill_heatmap'
    position = 0
    default_loss = 'SoftFocalLoss'

    def term(self, student: Maps, teacher: Maps, image_weights: Tensor | None) -> Tensor:
        """Return the loss between the heatmaps."""
        return self.loss(student.heatmap, teacher.heatmap, image_weights=image_weights)


@HOOKS.register_module()
class WidthHeightDistillHook(_MapDistillHook):
    """The width-height term, w2: :class:`~mmkd.distillation.losses.WidthHeightLoss`.

    Args: as of :class:`_MapDistillHook`; ``loss`` may be ``dict(type='PeakWidthHeightLoss')``.
    """

    default_name = 'distill_wh'
    position = 1
    default_loss = 'WidthHeightLoss'

    def term(self, student: Maps, teacher: Maps, image_weights: Tensor | None) -> Tensor:
        """Return the loss between widths and heights, in cells."""
        return self.loss(student.wh, teacher.wh, teacher.heatmap, image_weights=image_weights)


@HOOKS.register_module()
class OffsetDistillHook(_MapDistillHook):
    """The offset term, w3: :class:`~mmkd.distillation.losses.OffsetLoss`.

    Args: as of :class:`_MapDistillHook`; ``loss`` may be ``dict(type='PeakOffsetLoss')``.
    """

    default_name = 'distill_offset'
    position = 2
    default_loss = 'OffsetLoss'

    def term(self, student: Maps, teacher: Maps, image_weights: Tensor | None) -> Tensor:
        """Return the loss between offsets, in cells."""
        return self.loss(student.offset, teacher.offset, teacher.heatmap,
                         image_weights=image_weights)


@HOOKS.register_module()
class FeatureDistillHook(DistillHook):
    """The feature term, w4: :class:`~mmkd.distillation.losses.PKDLoss` on what enters the head.

    Each teacher has a 1x1 convolution of its own where its feature has other channels, and its
    feature is resampled to the student's size. Features of different teachers live in
    different spaces, so they are never mixed: the term is each teacher's own loss.

    Args:
        loss: registry config of the loss, which takes one feature of each.
        weight: factor of the term, or None for its place in ``distill_weights``.
        joint: the teachers' shares, ``'labels'``, ``'certainty'`` or ``'each'``, see
            :class:`HeatmapDistillHook`. The first two look at the heads' maps, and the share
            falls with the fourth power of the teacher's own term as well
            (:func:`~mmkd.detection.teacher_shares.fitted`): a narrow student cannot hold the
            features of two teachers, and follows the one whose features are in its reach.
        gradient_share: see :class:`DistillHook`.
        tap: of student and teachers alike.
        name: see :class:`DistillHook`.

    Raises:
        UserError: ``weight`` is negative or not a number, or ``joint`` is no rule for features.
    """

    default_name = 'distill_feature'
    position = 3

    def __init__(self, loss: dict | None = None, weight: float | None = None,
                 joint: str = 'labels', gradient_share: float | None = None,
                 tap: str = f'{HEAD}:input', name: str | None = None) -> None:
        super().__init__(loss or dict(type='PKDLoss'), tap=tap, weight=weight, name=name,
                         connector=dict(type='ConvConnector'), gradient_share=gradient_share)
        self.joint = checked_rule(joint, self.name, [rule for rule in JOINING_RULES
                                                     if rule in ('each', *SHARE_RULES)])
        self._class_index: dict[str, list[int] | None] = {}

    def prepare(self, step: Step, dataset: Any) -> None:
        """Build the connectors; see the base class."""
        if self.joint in SHARE_RULES:
            self._class_index = class_indices(step, dataset)
        super().prepare(step, dataset)

    def student_taps(self) -> list[str]:
        """Return the feature and, if the shares depend on it, the head; see the base class."""
        return super().student_taps() + self._rated()

    def taps_of(self, teacher: Teacher) -> list[str]:
        """Return the feature and, if the shares depend on it, the head; see the base class."""
        return super().taps_of(teacher) + self._rated()

    def stored_as(self, dtype: str) -> dict[str, Codec]:
        """Return how a cache stores features and maps; see the base class."""
        return super().stored_as(dtype) | {tap: MapCodec(dtype) for tap in self._rated()}

    def _rated(self) -> list[str]:
        return [HEAD] if self.joint in SHARE_RULES else []

    def connector_for(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> dict | None:
        """Return the 1x1 convolution's config where the channels differ; see the base class."""
        return self.connector if student[0].shape[1] != teacher[0].shape[1] else None

    def sources(self, step: Step) -> list[tuple[Teacher, float | Tensor]]:
        """Return who teaches, with shares by :attr:`joint` and by the fit; see the base class."""
        found = sources(step, self.joint, self._class_index)
        fits = self._fits(step, found)
        if fits is None:
            return found
        weighed = fitted(torch.stack([share for _, share in found]), fits)
        return [(teacher, share) for (teacher, _), share in zip(found, weighed, strict=True)]

    def compute(self, step: Step) -> Tensor:
        """Return the unweighted term; see the base class."""
        term, fits = super().compute(step), step.found.get((self.name, 'fits'))
        # Adds 0 to the value and no gradient to the student: each connector learns at the full
        # rate, or a teacher that is behind at first could not show how well its features fit.
        return term if fits is None else term + (fits - fits.detach()).sum()

    def _fits(self, step: Step, found: Sequence[tuple[Teacher, float | Tensor]]) -> Tensor | None:
        """Return each teacher's loss, ``(K,)``, on the student's feature as it is."""
        if not self.branches or not isinstance(found[0][1], Tensor):
            return None
        key = self.name, 'fits'
        if key not in step.found:
            losses = []
            for teacher, _ in found:
                branch = unwrapped(self.branches[teacher.name])
                student, theirs = self.features(step, teacher)
                losses.append(self.apply(branch, [one.detach() for one in student], theirs,
                                         self.targets_of(branch, step.samples)))
            step.found[key] = torch.stack(losses)
        return step.found[key]

    def features(self, step: Step, teacher: Teacher) -> tuple[list[Tensor], list[Tensor]]:
        """Pick the features, the teacher's at the student's size; see the base class."""
        (student, ), (theirs, ) = super().features(step, teacher)
        return [student], [_resized(theirs, student.shape[-2:])]


@HOOKS.register_module()
class AttentionDistillHook(FeatureDistillHook):
    """A feature term with :class:`~mmkd.distillation.losses.AttentionLoss`, the source's w4.

    Args:
        temperature: of both attentions.
        joint: as of :class:`FeatureDistillHook`; every teacher the same say by default, as this
            loss grows with the teacher's activations and does not tell who is near.
        **kwargs: as of :class:`FeatureDistillHook`, but for ``loss``.
    """

    default_name = 'distill_attention'

    def __init__(self, temperature: float = 0.5, joint: str = 'each', **kwargs: Any) -> None:
        super().__init__(dict(type='AttentionLoss', temperature=temperature), joint=joint, **kwargs)


def class_indices(step: Step, dataset: Any) -> dict[str, list[int] | None]:
    """Find the student's classes among each teacher's.

    Raises:
        UserError: a teacher lacks one, or its classes are unknown and as many as they are not.
    """
    classes = getattr(dataset, 'metainfo', {}).get('classes')
    channels = final_maps(step.student[HEAD]).heatmap.shape[1]
    found = {}
    for teacher in step.teachers:
        index = None if classes is None else class_index(classes, teacher.classes, teacher.name)
        theirs = final_maps(step.taps[teacher.name][HEAD]).heatmap.shape[1]
        if index is None and theirs != channels:
            raise UserError(f"teacher '{teacher.name}' has {theirs} classes and the student "
                            f'{channels} ({classes}), and the teacher\'s checkpoint does not '
                            'name its classes: add them as meta.dataset_meta.classes')
        found[teacher.name] = index
    return found


def teacher_maps(step: Step, index: Mapping[str, list[int] | None]) -> dict[str, Maps]:
    """Return each teacher's maps in the student's classes and at the student's stride."""
    if 'maps' not in step.found:
        size = final_maps(step.student[HEAD]).heatmap.shape[-2:]
        step.found['maps'] = {}
        for teacher in step.teachers:
            maps = final_maps(step.taps[teacher.name][HEAD])
            if index[teacher.name] is not None:
                maps = maps._replace(heatmap=maps.heatmap[:, index[teacher.name]])
            step.found['maps'][teacher.name] = resampled(maps, size)
    return step.found['maps']


def sources(step: Step, rule: str, index: Mapping[str, list[int] | None]
            ) -> list[tuple[Teacher, float | Tensor]]:
    """Return who teaches, each with its share: of every image alike, or ``(B,)``."""
    if rule not in SHARE_RULES or len(step.teachers) == 1:
        return shares(step.teachers)
    if rule not in step.found:
        maps = teacher_maps(step, index)
        step.found[rule] = shares_of_images(
            rule, [maps[teacher.name] for teacher in step.teachers],
            [teacher.weight for teacher in step.teachers], step.model, step.samples)
    return list(zip(step.teachers, step.found[rule], strict=True))


def _resized(feature: Tensor, size: tuple[int, int]) -> Tensor:
    if feature.shape[-2:] == size:
        return feature
    return F.interpolate(feature, size, mode='bilinear', align_corners=False)
