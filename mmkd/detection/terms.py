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
from mmdet.models.dense_heads import CenterNetHead
from mmengine.logging import print_log
from torch import Tensor, nn

from mmkd.detection.joining import JOINING_RULES, checked_rule, joined
from mmkd.detection.map_codec import HeatmapCodec
from mmkd.detection.teacher_maps import Maps, class_index, resampled
from mmkd.detection.teacher_shares import SHARE_RULES, fitted, shares_of_images
from mmkd.distillation.branch import Features
from mmkd.distillation.cache.codecs import Codec, DenseCodec
from mmkd.distillation.step import Step
from mmkd.distillation.teachers import Teacher
from mmkd.distillation.term import Share, Term, shares
from mmkd.errors import UserError, did_you_mean
from mmkd.registry import TERMS

__all__ = ['CenterNetTerm', 'FeatureTerm']

MAPS = Maps(heatmap='bbox_head:0:-1', wh='bbox_head:1:-1', offset='bbox_head:2:-1')
"""Where a CenterNet head gives its maps: the last stack's."""
ALL = 'all teachers'
"""The source of a target that is joined."""


class _RatedTerm(Term):
    """A term whose teachers may be weighed by what their heads say of each image."""

    joint: str
    _index: dict[str, list[int] | None]

    @property
    def reads_maps(self) -> bool:
        """Whether the maps of the heads are needed."""
        return True

    def meet(self, student: nn.Module, teachers: Sequence[Teacher]) -> None:
        """Refuse what is no CenterNet, if the term looks at its maps; see the base class."""
        models = {'the student': student} | {f"teacher '{one.name}'": one.model for one in teachers}
        for who, model in models.items():
            # A cached teacher has no model; the cache was built of one that passed.
            if model is None or not self.reads_maps:
                continue
            head = getattr(model, 'bbox_head', None)
            if not isinstance(head, CenterNetHead):
                raise UserError(
                    f"term '{self.name}' is a {type(self).__name__} and {who} no CenterNet "
                    f'({type(model).__name__}, head {type(head).__name__}): take terms for any '
                    'detector, such as configs/_base_/distillation/pkd.py, or --method pkd')

    def maps_of(self, step: Step) -> dict[str, Maps]:
        """Return each teacher's maps in the student's classes and at the student's stride."""
        key = 'maps', *(teacher.name for teacher in self.teachers_of(step))
        if key not in step.found:
            size = step.student[MAPS.heatmap].shape[-2:]
            found = {}
            for teacher in self.teachers_of(step):
                maps = Maps(*(step.taps[teacher.name][tap] for tap in MAPS))
                if self._index[teacher.name] is not None:
                    maps = maps._replace(heatmap=maps.heatmap[:, self._index[teacher.name]])
                found[teacher.name] = resampled(maps, size)
            step.found[key] = found
        return step.found[key]

    def sources(self, step: Step) -> list[tuple[str, Share]]:
        """Return who teaches, with shares by :attr:`joint`; see the base class.

        Where there are no labels, the teachers are weighed by how sure they are.
        """
        teachers = self.teachers_of(step)
        if self.joint not in SHARE_RULES or len(teachers) < 2:
            return shares(teachers)
        rule = self.joint if step.labelled else 'certainty'
        key = rule, *(teacher.name for teacher in teachers)
        if key not in step.found:
            maps = self.maps_of(step)
            step.found[key] = shares_of_images(
                rule, [maps[teacher.name] for teacher in teachers],
                [teacher.weight for teacher in teachers], step.model, step.samples)
        return [(teacher.name, share) for teacher, share in
                zip(teachers, step.found[key], strict=True)]

    def check_unlabelled(self, step: Step) -> None:
        """Say how the teachers are weighed there; see the base class."""
        if (self.joint == 'labels' and len(self.teachers_of(step)) > 1
                and step.found.setdefault('told of certainty', self.name) == self.name):
            print_log("Teachers with joint='labels' are weighed by how sure they are "
                      "(joint='certainty') on images without labels", 'current')
        super().check_unlabelled(step)


@TERMS.register_module()
class CenterNetTerm(_RatedTerm):
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

    def prepare(self, step: Step, dataset: Any) -> None:
        """Find the student's classes among each teacher's; see the base class."""
        self._index = class_indices(step, self.teachers_of(step), dataset)
        super().prepare(step, dataset)

    def sources(self, step: Step) -> list[tuple[str, Share]]:
        """Return who teaches, or one source for a joined target; see the base class."""
        if self.joint in ('each', *SHARE_RULES):
            return super().sources(step)
        return [(ALL, 1.0)] if self.teachers_of(step) else []

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
class FeatureTerm(_RatedTerm):
    """A term on features, by default on what enters a CenterNet's head: w4.

    Each teacher has a 1x1 convolution of its own where its feature has other channels, and its
    feature is resampled to the student's size. Features of different teachers live in
    different spaces, so they are never mixed: the term is each teacher's own loss.

    Args:
        loss: registry config of the loss, which takes one feature of each.
        weight: factor of the term, or None for its entry in ``distill_weights``.
        joint: the teachers' shares, ``'labels'``, ``'certainty'`` or ``'each'``, see
            :class:`CenterNetTerm`. The first two look at the heads' maps, and the share
            falls with the fourth power of the teacher's own term as well
            (:func:`~mmkd.detection.teacher_shares.fitted`): a narrow student cannot hold the
            features of two teachers, and follows the one whose features are in its reach.
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

    def prepare(self, step: Step, dataset: Any) -> None:
        """Build the connectors; see the base class."""
        if self.reads_maps:
            self._index = class_indices(step, self.teachers_of(step), dataset)
        super().prepare(step, dataset)

    def connector_for(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> dict | None:
        """Return the 1x1 convolution's config where the channels differ; see the base class."""
        return self.connector if student[0].shape[1] != teacher[0].shape[1] else None

    def sources(self, step: Step) -> list[tuple[str, Share]]:
        """Return who teaches, with shares by :attr:`joint` and by the fit; see the base class."""
        found = super().sources(step)
        fits = self._fits(step, found)
        if fits is None:
            return found
        weighed = fitted(torch.stack([share for _, share in found]), fits)
        return [(source, share) for (source, _), share in zip(found, weighed, strict=True)]

    def compute(self, step: Step) -> Tensor:
        """Return the unweighted term; see the base class."""
        term, fits = super().compute(step), step.found.get((self.name, 'fits'))
        # Adds 0 to the value and no gradient to the student: each connector learns at the full
        # rate, or a teacher that is behind at first could not show how well its features fit.
        return term if fits is None else term + (fits - fits.detach()).sum()

    def _fits(self, step: Step, found: Sequence[tuple[str, Share]]) -> Tensor | None:
        """Return each teacher's loss, ``(K,)``, on the student's feature as it is."""
        if len(self.branches) < len(found) or not isinstance(found[0][1], Tensor):
            return None  # while the branches are built, or if nothing is weighed
        key = self.name, 'fits'
        if key not in step.found:
            losses = []
            for source, _ in found:
                branch = self.branches[source]
                student, theirs = self.features(step, source)
                losses.append(self.apply(branch, [one.detach() for one in student], theirs,
                                         self.facts(branch, step, source)))
            step.found[key] = torch.stack(losses)
        return step.found[key]


def stored_maps(dtype: str) -> dict[str, Codec]:
    """Return how a cache stores a CenterNet's maps."""
    return dict.fromkeys(MAPS, DenseCodec(dtype)) | {MAPS.heatmap: HeatmapCodec(dtype)}


def class_indices(step: Step, teachers: Sequence[Teacher], dataset: Any
                  ) -> dict[str, list[int] | None]:
    """Find the student's classes among each teacher's.

    Raises:
        UserError: a teacher lacks one, or its classes are unknown and as many as they are not.
    """
    classes = getattr(dataset, 'metainfo', {}).get('classes')
    channels = step.student[MAPS.heatmap].shape[1]
    found = {}
    for teacher in teachers:
        index = None if classes is None else class_index(classes, teacher.classes, teacher.name)
        theirs = step.taps[teacher.name][MAPS.heatmap].shape[1]
        if index is None and theirs != channels:
            raise UserError(f"teacher '{teacher.name}' has {theirs} classes and the student "
                            f'{channels} ({classes}), and the teacher\'s checkpoint does not '
                            'name its classes: add them as meta.dataset_meta.classes')
        found[teacher.name] = index
    return found
