"""Terms between two DETRs: set matching, DETRDistill, KD-DETR."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.detection.detr_heads import (
    FAMILIES,
    Queries,
    decoded,
    decoder_inputs,
    detection_loss,
    hungarian,
    is_detr,
    matching,
    queries_of,
    query_kind,
    random_queries,
)
from mmkd.detection.teacher_maps import class_index
from mmkd.distillation.branch import Features
from mmkd.distillation.step import Step
from mmkd.distillation.teachers import Teacher
from mmkd.distillation.term import Term
from mmkd.errors import UserError
from mmkd.registry import TERMS

__all__ = ['DETRFeatureTerm', 'DETRQueryTerm', 'DETRTerm', 'KDDETRTerm']

PREDICTIONS = dict(cls='bbox_head:0', box='bbox_head:1')
"""``(L, B, Q, K)``: classes and boxes of all layers."""
DECODER = dict(feature='neck:*', memory='encoder')
"""What a decoder starts from."""


@TERMS.register_module()
class DETRTerm(Term):
    """A term between the predictions of two DETRs: ``cls`` and ``box`` of every decoder layer.

    Student and teacher are of the families of :mod:`mmkd.detection.detr_heads`, which may be two
    different ones, with any number of queries and layers. Denoising queries, which DINO has in
    training, are left out. Where a teacher names its classes, those of the student are picked out
    of them; in a softmax the rest counts as no object.

    Beside what every loss may ask for, this term knows ``has_background``, whether the classes are
    a softmax with one for no object, and ``assign``, the Hungarian assignment. Predictions come
    layer by layer, which a cache does not store.

    Args: as of :class:`~mmkd.distillation.Term`.

    Raises:
        UserError: as there; and when the run starts, if a detector does not fit.
    """

    needs_model = True
    same_queries = False
    """Whether the student's decoder is asked at the teacher's queries."""

    def __init__(self, loss: dict, weight: float | None = None, warmup_epochs: int = 0,
                 warmup: str = 'linear', gradient_share: float | None = None,
                 teachers: Sequence[str] | None = None) -> None:
        super().__init__(loss, PREDICTIONS, weight=weight, warmup_epochs=warmup_epochs,
                         warmup=warmup, gradient_share=gradient_share, teachers=teachers)
        self._index: dict[str, list[int] | None] = {}

    def meet(self, student: nn.Module, teachers: Sequence[Teacher]) -> None:
        """Check that the detectors fit; see the base class."""
        self._check_family('the student', student)
        for teacher in teachers:
            who = f"teacher '{teacher.name}'"
            self._check_family(who, teacher.model)
            kinds = [_has_background(one) for one in (student, teacher.model)]
            if kinds[0] != kinds[1]:
                names = ['a softmax with a class for no object' if kind else 'a sigmoid for each'
                         for kind in kinds]
                raise UserError(f"term '{self.name}' compares classes, and the student has "
                                f'{names[0]}, {who} {names[1]}: give both heads the same kind of '
                                'loss_cls, or take a method for the features, such as pkd')
            if self.same_queries and query_kind(student) != query_kind(teacher.model):
                ours, theirs = (_described(one) for one in (student, teacher.model))
                raise UserError(f"term '{self.name}' asks the student's decoder at the queries of "
                                f'{who}, and the student is {ours}, the teacher {theirs}: take '
                                'two of the same kind, or --method setkd')

    def _check_family(self, who: str, model: nn.Module) -> None:
        if not is_detr(model):
            names = ', '.join(one.__name__ for one in FAMILIES)
            raise UserError(f"term '{self.name}' is for {names}, and {who} is a "
                            f'{type(model).__name__}: take one of these, or a method for the '
                            'features of any detector, such as pkd')
        if self.same_queries and getattr(model, 'num_patterns', 0):
            raise UserError(f"term '{self.name}' asks decoders at queries without patterns, and "
                            f'{who} has num_patterns={model.num_patterns}: take --method setkd')

    def prepare(self, step: Step, dataset: Any) -> None:
        """Find the student's classes among each teacher's; see the base class."""
        classes = getattr(dataset, 'metainfo', {}).get('classes')
        own = step.model.bbox_head.num_classes
        for teacher in self.teachers_of(step):
            index = None if classes is None else class_index(classes, teacher.classes,
                                                             teacher.name)
            theirs = teacher.model.bbox_head.num_classes
            if index is None and theirs != own:
                raise UserError(f"teacher '{teacher.name}' has {theirs} classes and the student "
                                f"{own}, and the teacher's checkpoint does not name its classes: "
                                'add them as meta.dataset_meta.classes')
            self._index[teacher.name] = index
        super().prepare(step, dataset)

    def features(self, step: Step, source: str) -> tuple[Features, Features]:
        """Return what both predict, layer by layer; see the base class."""
        student, teacher = super().features(step, source)
        return ({name: matching(step.model, one) for name, [one] in student.items()},
                self.predictions_of(step, source, teacher))

    def predictions_of(self, step: Step, source: str, teacher: Features) -> Features:
        """Return a teacher's classes, as the student has them, and boxes, layer by layer."""
        [cls], [box] = teacher['cls'], teacher['box']
        return dict(cls=list(self.in_students_classes(step, source, cls).unbind()),
                    box=list(box.unbind()))

    def in_students_classes(self, step: Step, source: str, logits: Tensor) -> Tensor:
        """Pick the student's classes out of a teacher's ``(..., C)``."""
        index = self._index[source]
        if index is None:
            return logits
        if not _has_background(step.model):
            return logits[..., index]
        others = [i for i in range(logits.shape[-1]) if i not in index]
        return torch.cat((logits[..., index], logits[..., others].logsumexp(-1, True)), -1)

    def own_facts(self, step: Step, source: str) -> dict[str, Any]:
        """Return what belongs to DETRs; see the base class."""
        return super().own_facts(step, source) | dict(
            has_background=_has_background(step.model), assign=hungarian)


@TERMS.register_module()
class DETRFeatureTerm(DETRTerm):
    """A term between the necks of two DETRs that looks at the teacher's queries and predictions.

    The loss gets the student's ``feature``, level by level, and of the teacher ``feature``, and
    layer by layer ``query``, ``cls`` and ``box``.

    Args: as of :class:`DETRTerm`.
    """

    def __init__(self, loss: dict, **options: Any) -> None:
        super().__init__(loss, **options)
        self.tap = dict(feature='neck:*')
        self.teacher_tap = dict(feature='neck:*', query='bbox_head:input', **PREDICTIONS)

    def features(self, step: Step, source: str) -> tuple[Features, Features]:
        """Return the features of both and what the teacher makes of them; see the base class."""
        student, teacher = Term.features(self, step, source)
        [query] = teacher['query']
        return student, dict(feature=teacher['feature'], query=list(query.unbind()),
                             **self.predictions_of(step, source, teacher))


@TERMS.register_module()
class DETRQueryTerm(DETRTerm):
    """A term in which the student's decoder is asked once more, at the teacher's queries.

    Both are of the same family, with embeddings of the same width. Gradients reach what the decoder
    starts from, the decoder and the head. The loss gets ``cls`` and ``box``, layer by layer, of the
    student and the teacher at these queries, and may ask for ``detection_loss``, the student's own
    under another assignment.

    Args: as of :class:`DETRTerm`.
    """

    same_queries = True

    def __init__(self, loss: dict, **options: Any) -> None:
        super().__init__(loss, **options)
        self.tap = dict(DECODER)
        self.teacher_tap = DECODER | PREDICTIONS

    def features(self, step: Step, source: str) -> tuple[Features, Features]:
        """Return what both say at the teacher's queries; see the base class."""
        student, teacher = Term.features(self, step, source)
        classes, boxes = decoded(step.model, _inputs(step.model, student, step),
                                 self.queries(step, source, teacher)[1])
        return (dict(cls=list(classes.unbind()), box=list(boxes.unbind())),
                self.predictions_of(step, source, teacher))

    def own_facts(self, step: Step, source: str) -> dict[str, Any]:
        """Return what belongs to DETRs, and the student's own loss; see the base class."""
        return super().own_facts(step, source) | dict(
            detection_loss=detection_loss(step.model.bbox_head, step.samples))

    @torch.no_grad()
    def queries(self, step: Step, source: str, teacher: Features) -> tuple[dict, Queries]:
        """Return what the teacher's decoder starts from, and its queries."""
        model = _model_of(step, source)
        inputs = _inputs(model, teacher, step)
        return inputs, queries_of(model, inputs)


@TERMS.register_module()
class KDDETRTerm(DETRQueryTerm):
    """KD-DETR: both decoders are asked at the same points.

    The points are two sets of queries: the teacher's own (specific sampling), at which the teacher
    has answered in its own pass, and ``points`` drawn anew in every step (general sampling), as new
    embeddings are, at which both decoders run once more. The loss gets ``cls`` and ``box`` of each
    set, ``(L, B, N, K)``.

    Args:
        loss: registry config.
        points: how many are drawn; 0 for the teacher's alone.
        options: as of :class:`DETRTerm`.

    Raises:
        UserError: as there, or ``points`` is no number of at least 0.
    """

    def __init__(self, loss: dict, points: int = 300, **options: Any) -> None:
        super().__init__(loss, **options)
        if not isinstance(points, int) or points < 0:
            raise UserError(f'KDDETRTerm has points={points!r}: give a number of at least 0')
        self.points = points

    def features(self, step: Step, source: str) -> tuple[Features, Features]:
        """Return what both say at both sets of points; see the base class."""
        student, teacher = Term.features(self, step, source)
        theirs, queries = self.queries(step, source, teacher)
        own = partial(decoded, step.model, _inputs(step.model, student, step))
        ours, answers = [own(queries)], [(teacher['cls'][0], teacher['box'][0])]
        if self.points:
            drawn = random_queries(queries, self.points)
            ours.append(own(drawn))
            with torch.no_grad():
                answers.append(decoded(_model_of(step, source), theirs, drawn))
        answers = [(self.in_students_classes(step, source, cls), box) for cls, box in answers]
        return _grouped(ours), _grouped(answers)


def _grouped(answers: Sequence[tuple[Tensor, Tensor]]) -> dict[str, list[Tensor]]:
    classes, boxes = zip(*answers, strict=True)
    return dict(cls=list(classes), box=list(boxes))


def _inputs(model: nn.Module, leaves: Features, step: Step) -> dict[str, Any]:
    [memory] = leaves['memory']
    return decoder_inputs(model, leaves['feature'], step.samples, memory)


def _model_of(step: Step, source: str) -> nn.Module:
    [teacher] = [one for one in step.teachers if one.name == source]
    return teacher.model


def _has_background(model: nn.Module) -> bool:
    return not model.bbox_head.loss_cls.use_sigmoid


def _described(model: nn.Module) -> str:
    name, width, two_stage = query_kind(model)
    numbers = f'embeddings of {width} numbers' if width else 'no embeddings'
    return f'a {name} with {numbers}{" and as_two_stage" if two_stage else ""}'
