"""What one term trains for one teacher: its connectors and its losses."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.errors import UserError
from mmkd.registry import MODELS

__all__ = ['Branch']


class Branch(nn.Module):
    """``sum_l L_l(connector_l(student_l), teacher_l)`` over the pairs of features of a term.

    Each pair has a connector and a loss of its own. A class whose attribute ``multi_level`` is
    true takes all features at once, as lists; such a connector may hand anything to such a loss. A
    loss whose ``forward`` has no parameter ``teacher`` is called without.

    Constructor arguments that follow from the features need not stand in the config:
    ``student_channels`` and ``teacher_channels`` (of a ``multi_level`` class: lists),
    ``student_size`` and ``teacher_size`` (``(H, W)``, or ``()`` of a ``(B, C)`` feature),
    ``sample_labels`` (the label of every training sample) and ``student_model`` (the student).
    A connector whose ``forward`` takes ``teacher_size`` gets it in every step, for sizes that
    change from batch to batch.

    Args:
        loss: registry config.
        connector: registry config, or None.
        student: the student's features, from a dry run.
        teacher: the teacher's, as many.
        sample_labels: ``(N,)`` int64, or None if the data set does not tell.
        student_model: the student, of which auxiliary heads copy parts; or None.

    Raises:
        UserError: a connector cannot join the features, or the loss needs labels that the
            data set does not tell.
    """

    def __init__(self, loss: Mapping[str, Any], connector: Mapping[str, Any] | None,
                 student: Sequence[Tensor], teacher: Sequence[Tensor],
                 sample_labels: Tensor | None = None,
                 student_model: nn.Module | None = None) -> None:
        super().__init__()
        facts = dict(sample_labels=sample_labels, student_model=student_model)
        self.connectors = (None if connector is None else
                           nn.ModuleList(_built(connector, student, teacher, facts)))
        _check_connectors(self, connector, student, teacher)
        self.losses = nn.ModuleList(_built(loss, student, teacher, facts))
        self.targets = _names_of_targets(self.losses[0])
        """Names of what the loss takes beside the two features, and whether it must have it."""

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor],
                targets: Mapping[str, Any]) -> Tensor:
        """Return the unweighted sum, a scalar.

        Args:
            student: one feature per tap, with gradients.
            teacher: one feature per tap.
            targets: what the batch knows of :attr:`targets`.
        """
        if self.connectors is not None:
            student = _applied(self.connectors, student, teacher)
        return torch.stack(_losses(self.losses, student, teacher, targets)).sum()


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

    levels = [dict(student_channels=s.shape[1], teacher_channels=t.shape[1],
                   student_size=tuple(s.shape[2:]), teacher_size=tuple(t.shape[2:]))
              for s, t in zip(student, teacher, strict=True)]
    if getattr(cls, 'multi_level', False):
        levels = [{name: [level[name] for level in levels] for name in levels[0]}]
    return [build(level) for level in levels]


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


def _losses(losses: nn.ModuleList, student: Sequence[Tensor], teacher: Sequence[Tensor],
            targets: Mapping[str, Any]) -> list[Tensor]:
    if not _is_multi_level(losses):
        return [loss(s, t, **targets)
                for loss, s, t in zip(losses, student, teacher, strict=True)]
    if 'teacher' in inspect.signature(losses[0].forward).parameters:
        return [losses[0](student, teacher, **targets)]
    return [losses[0](student, **targets)]


def _names_of_targets(loss: nn.Module) -> dict[str, bool]:
    extra = list(inspect.signature(loss.forward).parameters.values())[1:]
    return {p.name: p.default is p.empty for p in extra if p.name != 'teacher'}
