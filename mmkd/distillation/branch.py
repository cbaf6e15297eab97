"""What one term trains for one teacher: its connectors and its losses."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.errors import UserError
from mmkd.registry import MODELS

__all__ = ['Branch']


class Branch(nn.Module):
    """``sum_l L_l(connector_l(student_l), teacher_l)`` over the pairs of features of a term.

    Each pair has a connector and a loss of its own. A class whose attribute ``multi_level`` is
    true takes all features at once, as lists.

    Constructor arguments that follow from the features need not stand in the config:
    ``student_channels`` and ``teacher_channels`` (of a ``multi_level`` class: lists),
    ``student_size`` and ``teacher_size`` (``(H, W)``, or ``()`` of a ``(B, C)`` feature) and
    ``sample_labels`` (the label of every training sample).

    Args:
        loss: registry config.
        connector: registry config, or None.
        student: the student's features, from a dry run.
        teacher: the teacher's, as many.
        sample_labels: ``(N,)`` int64, or None if the data set does not tell.

    Raises:
        UserError: a connector cannot join the features, or the loss needs labels that the
            data set does not tell.
    """

    def __init__(self, loss: Mapping[str, Any], connector: Mapping[str, Any] | None,
                 student: Sequence[Tensor], teacher: Sequence[Tensor],
                 sample_labels: Tensor | None = None) -> None:
        super().__init__()
        self.connectors = (None if connector is None else
                           nn.ModuleList(_built(connector, student, teacher, sample_labels)))
        _check_connectors(self, connector, student, teacher)
        self.losses = nn.ModuleList(_built(loss, student, teacher, sample_labels))
        self.targets = _names_of_targets(self.losses[0])
        """Names of what the loss takes beside the two features, and whether it must have it."""

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor],
                targets: Mapping[str, Tensor]) -> Tensor:
        """Return the unweighted sum, a scalar.

        Args:
            student: one feature per tap, with gradients.
            teacher: one feature per tap.
            targets: what the batch knows of :attr:`targets`.
        """
        if self.connectors is not None:
            student = _applied(self.connectors, student)
        return torch.stack(_losses(self.losses, student, teacher, targets)).sum()


def _built(config: Mapping[str, Any], student: Sequence[Tensor], teacher: Sequence[Tensor],
           sample_labels: Tensor | None) -> list[nn.Module]:
    cls = MODELS.get(config['type'])
    parameters = inspect.signature(cls.__init__).parameters
    if 'sample_labels' in parameters and sample_labels is None and 'sample_labels' not in config:
        raise UserError(f"{config['type']} needs the label of every training sample, and the "
                        'training data has no attribute `labels`: use a classification data set')

    def build(facts: Mapping[str, Any]) -> nn.Module:
        facts = {name: value for name, value in facts.items() if name in parameters}
        return MODELS.build(facts | dict(config))

    levels = [dict(student_channels=s.shape[1], teacher_channels=t.shape[1],
                   student_size=tuple(s.shape[2:]), teacher_size=tuple(t.shape[2:]))
              for s, t in zip(student, teacher, strict=True)]
    if getattr(cls, 'multi_level', False):
        levels = [{name: [level[name] for level in levels] for name in levels[0]}]
    return [build(level | dict(sample_labels=sample_labels)) for level in levels]


def _is_multi_level(modules: nn.ModuleList) -> bool:
    return getattr(modules[0], 'multi_level', False)


def _applied(connectors: nn.ModuleList, student: Sequence[Tensor]) -> list[Tensor]:
    if _is_multi_level(connectors):
        return connectors[0](student)
    return [connector(feature) for connector, feature in zip(connectors, student, strict=True)]


def _check_connectors(branch: Branch, config: Mapping[str, Any] | None, student: Sequence[Tensor],
                      teacher: Sequence[Tensor]) -> None:
    if config is None:
        return
    try:
        with torch.no_grad():
            _applied(branch.connectors.to(student[0].device).eval(), student)
    except RuntimeError as error:
        raise UserError(
            f"{config['type']} cannot join student features of shape "
            f'{[tuple(s.shape) for s in student]} to teacher features of shape '
            f'{[tuple(t.shape) for t in teacher]}: tap layers of the same kind, or take another '
            'connector') from error


def _losses(losses: nn.ModuleList, student: Sequence[Tensor], teacher: Sequence[Tensor],
            targets: Mapping[str, Tensor]) -> list[Tensor]:
    if _is_multi_level(losses):
        return [losses[0](student, teacher, **targets)]
    return [loss(s, t, **targets)
            for loss, s, t in zip(losses, student, teacher, strict=True)]


def _names_of_targets(loss: nn.Module) -> dict[str, bool]:
    forward: Callable = loss.forward
    extra = list(inspect.signature(forward).parameters.values())[2:]
    return {p.name: p.default is p.empty for p in extra}
