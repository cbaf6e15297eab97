"""The terms of multi-teacher joint distillation on CenterNet.

``L = L_CenterNet + w1 L_heatmap + w2 L_wh + w3 L_offset + w4 L_feature``, all four weights in
one config line: ``distill_weights = dict(heatmap=w1, wh=w2, offset=w3, feature=w4)``.

Source: Liu, Du, She, Yang, Systems Engineering and Electronics 46(4), 2024. It names four weights
``W = (w1, w2, w3, w4)`` and prints neither which is which nor the formulas. So each term takes its
loss from the config; ``configs/_base_/distillation`` has the recommended recipe and the
reading that is closest to the source.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmkd.detection.joining import JOINING_RULES, checked_rule, joined
from mmkd.detection.map_codec import HeatmapCodec
from mmkd.detection.rated_term import MAPS, RatedTerm
from mmkd.detection.teacher_maps import Maps
from mmkd.detection.teacher_shares import SHARE_RULES, feature_shares, image_shares
from mmkd.distillation.branch import Features
from mmkd.distillation.step import Step
from mmkd.distillation.term import Share, shares
from mmkd.errors import UserError, did_you_mean
from mmkd.registry import TERMS
from mmkd.teacher_cache.codecs import Codec, DenseCodec

__all__ = ['CenterNetTerm', 'FeatureTerm']

ALL = 'all teachers'
"""The source of a target that is joined."""


@TERMS.register_module()
class CenterNetTerm(RatedTerm):
    """A term on one of the maps that a CenterNet head gives: w1, w2 or w3.

    Args:
        map: ``'heatmap'``, ``'wh'`` or ``'offset'``.
        loss: registry config of the loss, of the student's map and a teacher's at the student's
            stride and in its classes; it may ask for the teacher's ``heatmap`` by that name.
        weight: factor of the term, or None for its entry in ``distill_weights``.
        joint: how several teachers are joined. Each teacher's own loss, with a share of each image
            that follows from how well the teacher finds the image's labels (``'labels'``) or how
            sure it is (``'certainty'``, and in the place of ``'labels'`` where there are none), see
            :mod:`mmkd.detection.teacher_shares`; or with the teachers' weights (``'each'``). Or one
            loss whose target is joined (``'mean'``, ``'max'``, ``'confidence'``), see
            :func:`mmkd.detection.joining.joined`.
        gradient_share: see :class:`~mmkd.distillation.Term`.
        teachers: likewise; they must be CenterNets.

    Raises:
        UserError: ``map`` is no map or ``joint`` no rule; when the run starts, student or teacher
            is no CenterNet, or a teacher lacks one of the student's classes.
    """

    def __init__(self, map: str, loss: dict, weight: float | None = None, joint: str = 'labels',
                 gradient_share: float | None = None,
                 teachers: Sequence[str] | None = None) -> None:
        if map not in Maps._fields:
            raise UserError(f'CenterNetTerm has map={map!r}: give one of {", ".join(Maps._fields)}.'
                            f'{did_you_mean(str(map), Maps._fields)}')
        super().__init__(loss, tap=getattr(MAPS, map), weight=weight,
                         gradient_share=gradient_share, teachers=teachers)
        self.map = map
        self.joint = checked_rule(joint, map)

    def student_patterns(self) -> list[str]:
        """Return the map and the heatmap, which has the size of all; see the base class."""
        return [self.tap, MAPS.heatmap]

    def teacher_patterns(self) -> list[str]:
        """Return all maps: sizes are weighed by the heatmap; see the base class."""
        return list(MAPS)

    def stored_as(self, dtype: str) -> dict[str, Codec]:
        """Return how a cache stores the teachers' maps; see the base class."""
        return stored_maps(dtype)

    def sources(self, step: Step) -> list[tuple[str, Share]]:
        """Return who teaches, or one source for a joined target; see the base class."""
        if self.joint in ('each', *SHARE_RULES):
            return super().sources(step)
        return [(ALL, 1.0)] if self.teachers_of(step) else []

    def shares_of(self, step: Step) -> Tensor:
        """Return the share of each teacher in each image, ``(K, B)``."""
        weights = [teacher.weight for teacher in self.teachers_of(step)]
        means, usual = self.means(step)
        return image_shares(weights, means, self.errors(step) / usual[:, None])

    def features(self, step: Step, source: str) -> tuple[Features, Features]:
        """Return the student's map and the one it imitates; see the base class."""
        return [step.student[self.tap]], [getattr(self._target(step, source), self.map)]

    def own_facts(self, step: Step, source: str) -> dict[str, Any]:
        """Return what the term itself can tell a loss: the teacher's ``heatmap``."""
        return super().own_facts(step, source) | dict(heatmap=self._target(step, source).heatmap)

    def _target(self, step: Step, source: str) -> Maps:
        maps = self.maps_of(step)
        if source != ALL:
            return maps[source]
        key = 'joined', self.joint, *maps
        if key not in step.found:
            weights = [weight for _, weight in shares(self.teachers_of(step))]
            step.found[key] = joined(list(maps.values()), weights, self.joint)
        return step.found[key]


@TERMS.register_module()
class FeatureTerm(RatedTerm):
    """A term on features, by default on what enters a CenterNet's head: w4.

    Each teacher has a 1x1 convolution of its own where its feature has other channels, and its
    feature is resampled to the student's size. Features of different teachers live in
    different spaces, so they are never mixed: the term is each teacher's own loss.

    Args:
        loss: registry config of the loss, which takes one feature of each.
        weight: factor of the term, or None for its entry in ``distill_weights``.
        joint: the teachers' shares, ``'labels'``, ``'certainty'`` or ``'each'``, see
            :class:`CenterNetTerm`. By the first two a teacher has one share of all images, which
            falls with what it gets wrong on average and with the fourth power of its own term
            (:func:`~mmkd.detection.teacher_shares.feature_shares`): a narrow student cannot hold
            the features of two teachers, and follows the better one in its reach.
        gradient_share: see :class:`~mmkd.distillation.Term`.
        tap: of student and teachers alike.
        teachers: see :class:`~mmkd.distillation.Term`.

    Raises:
        UserError: ``joint`` is no rule for features.
    """

    def __init__(self, loss: dict, weight: float | None = None, joint: str = 'labels',
                 gradient_share: float | None = None, tap: str = 'bbox_head:input:-1',
                 teachers: Sequence[str] | None = None) -> None:
        super().__init__(loss, tap, weight=weight, connector=dict(type='ConvConnector'),
                         size='student', gradient_share=gradient_share, teachers=teachers)
        self.joint = checked_rule(joint, 'feature', [rule for rule in JOINING_RULES
                                                     if rule in ('each', *SHARE_RULES)])

    @property
    def reads_maps(self) -> bool:
        """Whether the shares follow from the maps of the heads."""
        return self.joint in SHARE_RULES

    def student_patterns(self) -> list[str]:
        """Return the feature and, if the shares depend on it, the heatmap; see the base class."""
        return super().student_patterns() + ([MAPS.heatmap] if self.reads_maps else [])

    def teacher_patterns(self) -> list[str]:
        """Return the feature and, if the shares depend on them, the maps; see the base class."""
        return super().teacher_patterns() + (list(MAPS) if self.reads_maps else [])

    def stored_as(self, dtype: str) -> dict[str, Codec]:
        """Return how a cache stores features and maps; see the base class."""
        return super().stored_as(dtype) | (stored_maps(dtype) if self.reads_maps else {})

    def connector_for(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> dict | None:
        """Return the 1x1 convolution's config where the channels differ; see the base class."""
        return self.connector if student[0].shape[1] != teacher[0].shape[1] else None

    def shares_of(self, step: Step) -> Tensor:
        """Return the share of each teacher, ``(K,)``."""
        weights = [teacher.weight for teacher in self.teachers_of(step)]
        return feature_shares(weights, self.means(step)[0], self._fits(step))

    def compute(self, step: Step) -> Tensor:
        """Return the unweighted term; see the base class."""
        term, fits = super().compute(step), step.found.get((self.name, 'fits'))
        # Adds 0 to the value and no gradient to the student: each connector learns at the full
        # rate, or a teacher that is behind at first could not show how well its features fit.
        return term if fits is None else term + (fits - fits.detach()).sum()

    def _fits(self, step: Step) -> Tensor:
        """Return each teacher's loss, ``(K,)``, on the student's feature as it is."""
        losses = []
        for teacher in self.teachers_of(step):
            branch = self.branches[teacher.name]
            student, theirs = self.features(step, teacher.name)
            losses.append(self.apply(branch, [one.detach() for one in student], theirs,
                                     self.facts(branch, step, teacher.name)))
        step.found[self.name, 'fits'] = torch.stack(losses)
        return step.found[self.name, 'fits']


def stored_maps(dtype: str) -> dict[str, Codec]:
    """Return how a cache stores a CenterNet's maps."""
    return dict.fromkeys(MAPS, DenseCodec(dtype)) | {MAPS.heatmap: HeatmapCodec(dtype)}
