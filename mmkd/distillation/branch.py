"""What one term trains for one teacher: its connectors and its losses."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmkd.distillation.losses import InputError
from mmkd.errors import UserError
from mmkd.registry import MODELS

__all__ = ['CONSTRUCTOR_FACTS', 'SIZES', 'Branch', 'InputError', 'names_of_facts', 'resized',
           'takes_teacher']

SIZES = ('student', 'teacher', 'smaller')
CONSTRUCTOR_FACTS = ('student_channels', 'teacher_channels', 'student_size', 'teacher_size',
                     'sample_labels', 'student_model')
Features = Sequence[Tensor] | Mapping[str, Sequence[Tensor]]


class Branch(nn.Module):
    """What a term computes for one of its teachers, over the pairs of their features.

    That is ``sum_l L_l(connector_l(student_l), teacher_l)``.
    Each pair has a connector and a loss of its own. A class whose attribute ``multi_level`` is
    true takes all features at once, as lists; such a connector may hand anything to such a loss. A
    loss gets the two features by position, whatever it calls them; in a term of the student with
    itself, a ``multi_level`` loss without a parameter ``teacher`` gets the student's alone.
    Features that came in groups go to a single loss as two dicts of lists.

    A connector whose ``forward`` takes ``teacher_size`` gets it in every step, for sizes that
    change from batch to batch.

    Constructor arguments that follow from the features need not stand in the config:
    ``student_channels`` and ``teacher_channels`` (of a ``multi_level`` class: lists),
    ``student_size`` and ``teacher_size`` (``(H, W)``, or ``()`` of a ``(B, C)`` feature),
    ``sample_labels`` (the label of every training sample) and ``student_model`` (the student).

    Args:
        loss: registry config.
        connector: registry config, or None.
        student: the student's features, from a dry run.
        teacher: the teacher's, as many.
        sample_labels: ``(N,)`` int64, or None if the data set does not tell.
        student_model: the student, of which auxiliary heads copy parts; or None.
        size: to which of two maps the other is brought behind the connector: ``'student'``,
            ``'teacher'`` or ``'smaller'``; None to leave both.
        alone: whether the student is compared with itself.

    Raises:
        UserError: a connector cannot join the features, or the loss needs labels that the
            data set does not tell.
    """

    def __init__(self, loss: Mapping[str, Any], connector: Mapping[str, Any] | None,
                 student: Features, teacher: Features, sample_labels: Tensor | None = None,
                 student_model: nn.Module | None = None, size: str | None = None,
                 alone: bool = False) -> None:
        super().__init__()
        facts = dict(sample_labels=sample_labels, student_model=student_model)
        self.size = size
        self.grouped = isinstance(student, Mapping)
        if self.grouped and connector is not None:
            raise UserError(f"{connector['type']} cannot adapt features that come in groups: take "
                            'the connector out, or name taps without groups')
        self.connectors = (None if connector is None else
                           nn.ModuleList(_built(connector, student, teacher, facts)))
        _check_connectors(self, connector, student, teacher)
        self.losses = nn.ModuleList([MODELS.build(dict(loss))] if self.grouped else
                                    _built(loss, student, teacher, facts))
        self.takes_teacher = self.grouped or not alone or takes_teacher(type(self.losses[0]))
        self.facts = names_of_facts(type(self.losses[0]), self.takes_teacher)
        """Names of what the loss takes beside the two features, and whether it must have it."""

    def forward(self, student: Features, teacher: Features, facts: Mapping[str, Any]) -> Tensor:
        """Return the unweighted sum, a scalar.

        Args:
            student: one feature per leaf, with gradients; or a dict of such lists.
            teacher: likewise.
            facts: what is known of :attr:`facts`.

        Raises:
            InputError: a loss cannot compare these features.
        """
        if self.grouped:
            return self.losses[0](student, teacher, **facts)
        if self.connectors is not None:
            student = _applied(self.connectors, student, teacher)
        if self.size is not None:
            student, teacher = zip(*(_sized(self.size, *pair) for pair in
                                     zip(student, teacher, strict=True)), strict=True)
        if not _is_multi_level(self.losses):
            return torch.stack([loss(s, t, **facts) for loss, s, t in
                                zip(self.losses, student, teacher, strict=True)]).sum()
        features = (student, teacher) if self.takes_teacher else (student, )
        return self.losses[0](*features, **facts)


def names_of_facts(loss: type, takes_teacher: bool = True) -> dict[str, bool]:
    """Return what a loss asks for by name, and whether it must have it.

    That is every parameter of its ``forward`` behind the two features, or behind one if it gets
    the student's alone, but for ``*args`` and ``**kwargs``.
    """
    parameters = list(inspect.signature(loss.forward).parameters.values())[1:]
    return {p.name: p.default is p.empty for p in parameters[1 + takes_teacher:]
            if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def takes_teacher(loss: type) -> bool:
    """Tell whether a loss compares two sides, also in a term of the student with itself."""
    return not getattr(loss, 'multi_level', False) or (
        'teacher' in inspect.signature(loss.forward).parameters)


def _built(config: Mapping[str, Any], student: Sequence[Tensor], teacher: Sequence[Tensor],
           facts: Mapping[str, Any]) -> list[nn.Module]:
    cls = MODELS.get(config['type'])
    parameters = inspect.signature(cls.__init__).parameters
    known = config.keys() | {name for name, fact in facts.items() if fact is not None}
    if 'sample_labels' in parameters and 'sample_labels' not in known:
        raise UserError(f"{config['type']} needs the label of every training sample, and the "
                        'training data has no attribute `labels`: use a classification data set')

    def build(level: Mapping[str, Any]) -> nn.Module:
        given = {name: value for name, value in (level | facts).items() if name in parameters}
        return MODELS.build(given | dict(config))

    levels = [dict(student_channels=_channels(s), teacher_channels=_channels(t),
                   student_size=tuple(s.shape[2:]), teacher_size=tuple(t.shape[2:]))
              for s, t in zip(student, teacher, strict=True)]
    if getattr(cls, 'multi_level', False):
        levels = [{name: [level[name] for level in levels] for name in levels[0]}]
    return [build(level) for level in levels]


def _channels(feature: Tensor) -> int:
    return feature.shape[1] if feature.dim() > 1 else 1


def _is_multi_level(modules: nn.ModuleList) -> bool:
    return getattr(modules[0], 'multi_level', False)


def _applied(connectors: nn.ModuleList, student: Sequence[Tensor],
             teacher: Sequence[Tensor]) -> list[Tensor]:
    sizes = [tuple(feature.shape[2:]) for feature in teacher]
    if _is_multi_level(connectors):
        return _adapted(connectors[0], student, sizes)
    return [_adapted(connector, feature, size)
            for connector, feature, size in zip(connectors, student, sizes, strict=True)]


def _adapted(connector: nn.Module, student: Any, teacher_size: Any) -> Any:
    if 'teacher_size' in inspect.signature(connector.forward).parameters:
        return connector(student, teacher_size=teacher_size)
    return connector(student)


def _check_connectors(branch: Branch, config: Mapping[str, Any] | None, student: Sequence[Tensor],
                      teacher: Sequence[Tensor]) -> None:
    if config is None:
        return
    try:
        with torch.no_grad():
            _applied(branch.connectors.to(student[0].device).eval(), student, teacher)
    except RuntimeError as error:
        raise UserError(
            f"{config['type']} cannot join student features of shape "
            f'{[tuple(s.shape) for s in student]} to teacher features of shape '
            f'{[tuple(t.shape) for t in teacher]}: tap layers of the same kind, or take another '
            'connector') from error


def _sized(size: str, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Bring one of two maps to the other's size: averaged where it shrinks, else bilinear."""
    if student.dim() != 4 or teacher.dim() != 4 or student.shape[2:] == teacher.shape[2:]:
        return student, teacher
    smaller = student.shape[2:].numel() <= teacher.shape[2:].numel()
    if size == 'student' or (size == 'smaller' and smaller):
        return student, resized(teacher, student.shape[2:])
    return resized(student, teacher.shape[2:]), teacher


def resized(feature: Tensor, size: Sequence[int]) -> Tensor:
    """Return a map ``(B, C, H, W)`` at another size."""
    if feature.shape[2:] == torch.Size(size):
        return feature
    if feature.shape[2] >= size[0] and feature.shape[3] >= size[1]:
        return F.adaptive_avg_pool2d(feature, tuple(size))
    return F.interpolate(feature, tuple(size), mode='bilinear', align_corners=False)
