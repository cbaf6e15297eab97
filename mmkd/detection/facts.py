"""What the batch of a detector tells a loss that asks for it by name."""

from typing import Any

from torch import Tensor, nn

from mmkd.detection.dense_heads import Family, assigned, family_of, priors_of
from mmkd.distillation.losses import Assignment, Priors
from mmkd.distillation.step import Step, fact
from mmkd.errors import UserError

__all__: list[str] = []


def _labelled(step: Step) -> list[Any] | None:
    samples = step.samples
    if not isinstance(samples, (list, tuple)) or any('gt_instances' not in s for s in samples):
        return None
    return [sample.gt_instances for sample in samples]


@fact('boxes', of_labels=True)
def _boxes(step: Step) -> list[Tensor] | None:
    """The true boxes of each image, ``(n, 4)`` as x1, y1, x2, y2 in pixels of the input."""
    found = _labelled(step)
    return found and [getattr(one.bboxes, 'tensor', one.bboxes) for one in found]


@fact('labels', of_labels=True)
def _labels(step: Step) -> list[Tensor] | None:
    """The true classes of each image, ``(n,)``."""
    found = _labelled(step)
    return found and [one.labels for one in found]


@fact('img_shapes')
def _img_shapes(step: Step) -> list[tuple[int, int]] | None:
    """Height and width in pixels of each image in its input; what lies beyond is padding."""
    samples = step.samples
    if not isinstance(samples, (list, tuple)) or any('img_shape' not in s for s in samples):
        return None
    return [tuple(sample.img_shape[:2]) for sample in samples]


@fact('student_head')
def _student_head(step: Step) -> nn.Module | None:
    """The student's ``bbox_head``, to be called as a function."""
    return getattr(step.model, 'bbox_head', None)


@fact('priors')
def _priors(step: Step) -> Priors:
    """Where the student's dense head starts from: its anchors or points, level by level."""
    head, _ = _dense_head(step, 'priors')
    maps = [leaf for name, leaf in step.student.items() if name.startswith('bbox_head:0:')]
    if len(maps) != head.prior_generator.num_levels:
        raise UserError('a loss asks for `priors`, and this run does not record the maps of every '
                        "level: give its term type='DenseTerm'")
    return priors_of(head, [tuple(one.shape[-2:]) for one in maps], maps[0].device)


@fact('assignment', of_labels=True)
def _assignment(step: Step) -> Assignment:
    """What the student's dense head was to predict in this very pass."""
    head, family = _dense_head(step, 'assignment')
    if not any(name.startswith('bbox_head.get_targets():') for name in step.student):
        raise UserError('a loss asks for `assignment`, and this run does not record the targets of '
                        "the student's head: give its term type='DenseTerm'")
    return assigned(head, family, step.student, len(step.samples))


def _dense_head(step: Step, asked: str) -> tuple[nn.Module, Family]:
    head = getattr(step.model, 'bbox_head', None)
    family = family_of(head)
    if family is None:
        raise UserError(f'a loss asks for `{asked}`, and the head of the student '
                        f'({type(step.model).__name__}) is none of GFL, RetinaNet, ATSS and FCOS')
    return head, family
