"""Terms whose teachers are weighed by what their CenterNet heads say of each image."""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import CenterNetHead
from mmengine.dist import all_reduce
from mmengine.logging import print_log
from torch import Tensor, nn

from mmkd.detection.teacher_maps import Maps, class_index, resampled
from mmkd.detection.teacher_shares import SHARE_RULES, errors_of_teachers
from mmkd.distillation.step import Step
from mmkd.distillation.teachers import Teacher
from mmkd.distillation.term import Share, Term, shares
from mmkd.errors import UserError

__all__ = ['MAPS', 'RatedTerm']

MAPS = Maps(heatmap='bbox_head:0:-1', wh='bbox_head:1:-1', offset='bbox_head:2:-1')
"""Where a CenterNet head gives its maps: the last stack's."""
MEMORY = 100
"""Steps over which a teacher's errors are averaged."""


class RatedTerm(Term):
    """A term whose teachers may be weighed by what their heads say of each image.

    A subclass has an argument ``joint``, the rule, and says :meth:`shares_of` the teachers.
    """

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

    def rates(self, step: Step) -> bool:
        """Tell whether several teachers are weighed by what their heads say."""
        return self.joint in SHARE_RULES and len(self.teachers_of(step)) > 1

    def errors(self, step: Step) -> Tensor:
        """Return what each teacher gets wrong on each image by :attr:`joint`, ``(K, B)``.

        Where there are no labels: how unsure it is.
        """
        rule = self.joint if step.labelled else 'certainty'
        key = rule, *(teacher.name for teacher in self.teachers_of(step))
        if key not in step.found:
            maps = self.maps_of(step)
            step.found[key] = errors_of_teachers(rule, list(maps.values()), step.model,
                                                 step.samples)
        return step.found[key]

    def means(self, step: Step) -> tuple[Tensor, Tensor]:
        """Take in this batch's errors; return each teacher's mean, twice ``(K,)``.

        The first is of the last 100 steps or so, and of labelled batches if there are any, by
        which a teacher is weighed as a whole. The second is what its errors on this batch's images
        are compared with: the same, but on images without labels this batch's own mean.
        """
        now = self.errors(step).mean(1)
        all_reduce(now, op='mean')
        if not torch.is_grad_enabled():  # a trial leaves no trace
            return now, now
        self._labelled = self._labelled or step.labelled
        branches = [self.branches[teacher.name] for teacher in self.teachers_of(step)]
        counts = step.labelled or not self._labelled
        if counts:
            for branch, error in zip(branches, now, strict=True):
                branch.steps += 1
                branch.mean_error += (error - branch.mean_error) / branch.steps.clamp(max=MEMORY)
        found = torch.stack([branch.mean_error for branch in branches])
        return found, found if counts else now

    def shares_of(self, step: Step) -> Tensor:
        """Return the share of each teacher, ``(K,)`` or of each image ``(K, B)``."""
        raise NotImplementedError

    def prepare(self, step: Step, dataset: Any) -> None:
        """Find classes, build branches, and where errors are averaged; see the base class."""
        if self.reads_maps:
            self._index = _class_indices(step, self.teachers_of(step), dataset)
        super().prepare(step, dataset)
        self._labelled = False
        if self.rates(step):
            for branch in self.branches.values():  # buffers, so that they are saved and resumed
                branch.register_buffer('mean_error', step.inputs.new_zeros(()))
                branch.register_buffer('steps', step.inputs.new_zeros(()))

    def sources(self, step: Step) -> list[tuple[str, Share]]:
        """Return who teaches, with shares by :attr:`joint`; see the base class."""
        teachers = self.teachers_of(step)
        if not self.rates(step) or len(self.branches) < len(teachers):
            return shares(teachers)  # also while the branches are built
        key = self.name, 'shares'
        if key not in step.found:
            step.found[key] = self.shares_of(step)
        return [(teacher.name, share) for teacher, share in
                zip(teachers, step.found[key], strict=True)]

    def check_unlabelled(self, step: Step) -> None:
        """Say how the teachers are weighed there; see the base class."""
        if (self.joint == 'labels' and len(self.teachers_of(step)) > 1
                and step.found.setdefault('told of certainty', self.name) == self.name):
            print_log("On images without labels, teachers with joint='labels' are weighed by how "
                      "sure they are of each image (joint='certainty')", 'current')
        super().check_unlabelled(step)


def _class_indices(step: Step, teachers: Sequence[Teacher], dataset: Any
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
