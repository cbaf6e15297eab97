"""A term on features whose loss knows how sure the teacher is of an object in each cell."""

from collections.abc import Sequence
from typing import Any

from mmdet.models.dense_heads import (
    ATSSHead,
    FCOSHead,
    GFLHead,
    RetinaHead,
    RTMDetHead,
    RTMDetSepBNHead,
    YOLOXHead,
)
from torch import Tensor, nn

from mmkd.distillation.step import Step
from mmkd.distillation.teachers import Teacher
from mmkd.distillation.term import Term
from mmkd.errors import UserError
from mmkd.registry import TERMS

__all__ = ['HEADS', 'ScoreTerm', 'scores_of']

HEADS = (GFLHead, RetinaHead, ATSSHead, FCOSHead, RTMDetHead, RTMDetSepBNHead, YOLOXHead)
OUTPUTS = 'bbox_head:*:*'
"""Class logits, boxes and, of some, centerness or objectness; each level by level."""
OWN = ('forward', 'predict_by_feat', '_predict_by_feat_single')


@TERMS.register_module()
class ScoreTerm(Term):
    """A term on features that tells its loss ``teacher_scores``.

    These are, for each pair of levels, the teacher's highest class score in every cell,
    ``(B, H, W)``, see :func:`scores_of`. All classes of the teacher count, also those that the
    student does not learn. The teacher has one of :data:`HEADS`, with sigmoid classes, and its
    taps are levels that enter the head, by their numbers: ``neck:*``. The student may be anything.
    A cache stores all that the head gives.

    Args: as of :class:`~mmkd.distillation.Term`.

    Raises:
        UserError: as there; and when the run starts, if a teacher's head is another one, or a
            level has no scores.
    """

    def meet(self, student: nn.Module, teachers: Sequence[Teacher]) -> None:
        """Check that each teacher's head gives scores; see the base class."""
        for teacher in teachers:
            model = teacher.model
            if model is None:
                continue  # its outputs come from a cache, and were looked at when it was built
            head = getattr(model, 'bbox_head', None)
            if not _gives_scores(head):
                kind = 'no bbox_head' if head is None else f'the head {type(head).__name__}'
                known = ', '.join(one.__name__ for one in HEADS)
                raise UserError(f"term '{self.name}' asks teachers with one of the heads {known} "
                                f"and sigmoid classes for scores, and teacher '{teacher.name}' "
                                f'({type(model).__name__}) has {kind}: take one of these, or a '
                                'method for the features of any detector, such as pkd')

    def teacher_patterns(self) -> list[str]:
        """Return what must be recorded of each teacher, its head's outputs too; see the base."""
        return [*super().teacher_patterns(), OUTPUTS]

    def own_facts(self, step: Step, source: str) -> dict[str, Any]:
        """Return ``teacher_scores`` as well; see the base class."""
        taps = step.taps[source]
        scores = []
        for leaf in self.pairs[source][1]:
            level = leaf.rpartition(':')[2]
            logits = taps.get(f'bbox_head:0:{level}')
            if logits is None or logits.shape[-2:] != taps[leaf].shape[-2:]:
                raise UserError(f"term '{self.name}' finds no scores of teacher '{source}' for "
                                f"'{leaf}': tap the levels that enter its head by their numbers, "
                                "such as teacher_tap='neck:*'")
            scores.append(scores_of(logits, taps.get(f'bbox_head:2:{level}')))
        return super().own_facts(step, source) | dict(teacher_scores=scores)


def _gives_scores(head: nn.Module | None) -> bool:
    return any(isinstance(head, kind) and head.use_sigmoid_cls and all(
        getattr(type(head), name, None) is getattr(kind, name, None) for name in OWN)
        for kind in HEADS)


def scores_of(logits: Tensor, factors: Tensor | None = None) -> Tensor:
    """Return the highest class score in each cell, ``(B, H, W)``, over classes and priors.

    ``q = max_{ac} sigmoid(z_ac) sigmoid(f_a)``, as the heads themselves score what they predict:
    ``f`` is the centerness of FCOS and ATSS and the objectness of YOLOX; others have none.

    Args:
        logits: ``z``, ``(B, A C, H, W)``, of ``A`` priors in a cell and ``C`` classes.
        factors: ``f``, ``(B, A, H, W)``, logits as well; None for a factor of 1.
    """
    scores = logits.sigmoid()
    if factors is not None:
        scores = scores.unflatten(1, (factors.shape[1], -1)).amax(2) * factors.sigmoid()
    return scores.amax(1)
