"""Terms between the outputs of two dense heads: LD, BCKD, CrossKD."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from mmkd.detection.dense_heads import FAMILIES, Family, decoded, family_of, through_tail
from mmkd.detection.teacher_maps import class_index
from mmkd.distillation.branch import Features, names_of_facts
from mmkd.distillation.losses._features import channel_statistics
from mmkd.distillation.losses._precision import at_least_float32
from mmkd.distillation.step import Step
from mmkd.distillation.teachers import Teacher
from mmkd.distillation.term import Term
from mmkd.errors import UserError
from mmkd.registry import MODELS, TERMS

__all__ = ['CrossKDTerm', 'DenseTerm']

CLASSES, BOXES, CENTERNESS = 'bbox_head:0:*', 'bbox_head:1:*', 'bbox_head:2:*'
OTHERS = 'or take a method for the features of any detector, such as pkd'


@TERMS.register_module()
class DenseTerm(Term):
    """A term between the outputs of dense heads: ``cls`` and ``box`` of every level.

    Student and teacher have a ``bbox_head`` of a family of :mod:`mmkd.detection.dense_heads`, which
    may be two different ones if they have the same levels and as many priors in each cell. Where a
    teacher names its classes, those of the student are picked out of them.

    Beside what every loss may ask for, this term knows ``assignment``, ``priors`` and
    ``student_head`` (see :mod:`mmkd.detection.facts`), ``teacher_head``, and two functions from
    maps of ``box`` to the boxes of each level in pixels, ``decode_student`` and ``decode_teacher``.
    Those of a teacher's head need the teacher itself: a cache of its outputs is not enough, and the
    run stops before it is built.

    Args: as of :class:`~mmkd.distillation.Term`.

    Raises:
        UserError: as there; and when the run starts, if a head does not fit.
    """

    from_the_model = ('teacher_model', 'teacher_head', 'decode_teacher')

    def __init__(self, loss: dict, weight: float | None = None, warmup_epochs: int = 0,
                 warmup: str = 'linear', until: float | None = None,
                 gradient_share: float | None = None,
                 teachers: Sequence[str] | None = None) -> None:
        super().__init__(loss, dict(cls=CLASSES, box=BOXES), weight=weight,
                         warmup_epochs=warmup_epochs, warmup=warmup, until=until,
                         gradient_share=gradient_share, teachers=teachers)
        self._taps_of_targets: list[str] = []
        self._index: dict[str, list[int] | None] = {}

    def meet(self, student: nn.Module, teachers: Sequence[Teacher]) -> None:
        """Check that the heads fit; see the base class."""
        loss = MODELS.get(self.loss_config['type'])
        taps = self._family('the student', student, loss).taps
        self._taps_of_targets = taps if 'assignment' in names_of_facts(loss) else []
        grid = _grid(student)
        for teacher in teachers:
            model, who = teacher.model, f"teacher '{teacher.name}'"
            if model is None:
                continue  # its outputs come from a cache
            self._family(who, model, loss)
            if _grid(model) != grid:
                raise UserError(f"term '{self.name}' compares two heads prior by prior, and the "
                                f'student has {_listed(grid)}, {who} {_listed(_grid(model))}: '
                                f'take detectors that have the same, {OTHERS}')

    def _family(self, who: str, model: nn.Module, loss: type) -> Family:
        head = getattr(model, 'bbox_head', None)
        family = family_of(head)
        if family is None:
            kind = 'no bbox_head' if head is None else f'the head {type(head).__name__}'
            known = ', '.join(one.head.__name__ for one in FAMILIES)
            raise UserError(f"term '{self.name}' is for detectors with one of the heads {known} "
                            f'and sigmoid classes, and {who} ({type(model).__name__}) has {kind}: '
                            f'take one of these, {OTHERS}')
        if getattr(loss, 'needs_distributions', False) and not family.gives_distributions:
            raise UserError(f"term '{self.name}' compares distributions over the places of edges "
                            f'({loss.__name__}), and the {type(head).__name__} of {who} gives '
                            f'none: take GFL for both, {OTHERS}')
        return family

    def student_patterns(self) -> list[str]:
        """Return what must be recorded of the student, its targets too; see the base class."""
        return [*super().student_patterns(), CLASSES, *self._taps_of_targets]

    def prepare(self, step: Step, dataset: Any) -> None:
        """Find the student's classes among each teacher's; see the base class."""
        classes = getattr(dataset, 'metainfo', {}).get('classes')
        self._index = {teacher.name: None if classes is None else
                       class_index(classes, teacher.classes, teacher.name)
                       for teacher in self.teachers_of(step)}
        super().prepare(step, dataset)

    def features(self, step: Step, source: str) -> tuple[Features, Features]:
        """Pick the maps, the teacher's in the student's classes; see the base class."""
        student, teacher = super().features(step, source)
        return student, self.in_students_classes(step, source, teacher)

    def in_students_classes(self, step: Step, source: str, maps: Features) -> Features:
        """Pick the student's classes out of a teacher's map."""
        index = self._index[source]
        if index is None:
            return maps
        count = len(step.teacher(source).classes)
        return {**maps, 'cls': [_picked(one, index, count) for one in maps['cls']]}

    def own_facts(self, step: Step, source: str) -> dict[str, Any]:
        """Return what belongs to this source; see the base class."""
        found = super().own_facts(step, source)
        head = step.model.bbox_head
        found['decode_student'] = partial(decoded, head, family_of(head), trains=True)
        theirs = getattr(found['teacher_model'], 'bbox_head', None)
        if theirs is not None:
            found['teacher_head'] = theirs
            found['decode_teacher'] = partial(decoded, theirs, family_of(theirs), trains=False)
        return found


def _grid(model: nn.Module) -> list[tuple[int, int]]:
    """Return the stride of each level, and how many priors a cell has there."""
    generator = model.bbox_head.prior_generator
    return [(stride[0], count) for stride, count in
            zip(generator.strides, generator.num_base_priors, strict=True)]


def _listed(grid: Sequence[tuple[int, int]]) -> str:
    return ', '.join(f'{count} in a cell of stride {stride}' for stride, count in grid)


def _picked(feature: Tensor, index: Sequence[int], classes: int) -> Tensor:
    """Pick classes out of ``(B, A C, H, W)``."""
    return feature.unflatten(1, (-1, classes))[:, :, list(index)].flatten(1, 2)


@TERMS.register_module()
class CrossKDTerm(DenseTerm):
    """CrossKD: the teacher's head goes on from the middle of the student's.

    What leaves convolution (and norm) number ``i`` of the student's class and box branch, before
    the activation, is brought to the mean and standard deviation that the teacher's has there,
    channel by channel over the batch and all cells: ``x = sigma_t (f - mu_s) / (sigma_s + 1e-6) +
    mu_t``. The rest of the teacher's head, frozen, makes cross-head predictions of ``x``, and
    :class:`~mmkd.distillation.losses.CrossKDLoss` compares them with the teacher's own. Gradients
    reach the student through the teacher's layers; the student's own later ones get none.

    Both heads have at least ``i`` convolutions with as many channels in each branch.

    Args:
        loss: registry config.
        convs: ``i``; 3 of 4 as published, of FCOS 2.
        weight: see :class:`~mmkd.distillation.Term`, likewise below.
        warmup_epochs: see there.
        warmup: see there.
        until: see there.
        gradient_share: see there.
        teachers: see there.

    Raises:
        UserError: as of :class:`DenseTerm`.
    """

    def __init__(self, loss: dict, convs: int = 3, weight: float | None = None,
                 warmup_epochs: int = 0, warmup: str = 'linear', until: float | None = None,
                 gradient_share: float | None = None,
                 teachers: Sequence[str] | None = None) -> None:
        super().__init__(loss, weight, warmup_epochs, warmup, until, gradient_share, teachers)
        self.convs = convs
        self.tap = {branch: f'bbox_head.{branch}_convs.{convs - 1}.activate:input:*'
                    for branch in ('cls', 'reg')}
        self.teacher_tap = dict(hidden_cls=self.tap['cls'], hidden_reg=self.tap['reg'],
                                cls=CLASSES, box=BOXES)
        if loss.get('centerness_weight'):
            self.teacher_tap['centerness'] = CENTERNESS

    def meet(self, student: nn.Module, teachers: Sequence[Teacher]) -> None:
        """Check that the heads fit; see the base class."""
        super().meet(student, teachers)
        own = self._widths('the student', student)
        for teacher in teachers:
            who = f"teacher '{teacher.name}'"
            theirs = self._widths(who, teacher.model)
            if theirs != own:
                raise UserError(f"term '{self.name}' hands the student's features to the head of "
                                f'{who}, and they have {own} channels in its branches, the '
                                f"teacher's {theirs}: give the student as many feat_channels, "
                                f'{OTHERS}')
            family = family_of(teacher.model.bbox_head)
            if self.loss_config.get('centerness_weight') and len(family.predictors) < 3:
                raise UserError(f"term '{self.name}' has a centerness_weight, and the head of "
                                f'{who} predicts none: leave it out')
            if self.loss_config.get('box') == 'distribution' and not family.gives_distributions:
                raise UserError(f"term '{self.name}' has box='distribution', and the head of {who} "
                                "gives none: take box='giou'")

    def _widths(self, who: str, model: nn.Module) -> tuple[int, int]:
        branches = model.bbox_head.cls_convs, model.bbox_head.reg_convs
        if not 1 <= self.convs <= min(map(len, branches)):
            raise UserError(f"term '{self.name}' has convs={self.convs}, and the branches of the "
                            f'head of {who} have {len(branches[0])} and {len(branches[1])} '
                            'convolutions: give a number from 1 to that')
        return branches[0][self.convs - 1].out_channels, branches[1][self.convs - 1].out_channels

    def features(self, step: Step, source: str) -> tuple[Features, Features]:
        """Return the cross-head predictions and the teacher's own; see the base class."""
        student, teacher = Term.features(self, step, source)
        head = self.own_facts(step, source)['teacher_head']
        family = family_of(head)
        levels = zip(student['cls'], student['reg'], teacher['hidden_cls'],
                     teacher['hidden_reg'], strict=True)
        found = [through_tail(head, family, _aligned(cls, like_cls), _aligned(reg, like_reg),
                              level, self.convs)
                 for level, (cls, reg, like_cls, like_reg) in enumerate(levels)]
        crossed = dict(zip(('cls', 'box', 'centerness'), zip(*found, strict=True), strict=False))
        return (self.in_students_classes(step, source, crossed),
                self.in_students_classes(step, source, teacher))


def _aligned(student: Tensor, teacher: Tensor) -> Tensor:
    """Give a student's map ``(B, C, H, W)`` the teacher's mean and deviation in every channel."""
    student = at_least_float32(student)
    mean, deviation = channel_statistics(student)
    wanted_mean, wanted = channel_statistics(at_least_float32(teacher))
    return wanted * (student - mean) / (deviation + 1e-6) + wanted_mean
