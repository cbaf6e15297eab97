"""What one batch gave, and what losses may ask of it by name.

A *fact* is such an answer: a loss whose ``forward`` has a parameter ``labels`` gets the labels of
the batch. Functions marked by :func:`fact` work one out, at most once in a step.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from mmkd.distillation.teachers import Teacher
from mmkd.errors import UserError, did_you_mean

__all__ = ['Step', 'fact', 'facts_for', 'facts_of_labels', 'known_facts']


@dataclass
class Step:
    """What one batch gave."""

    student: Mapping[str, Tensor]
    """The student's tapped leaves by name, with gradients."""
    teachers: Sequence[Teacher]
    taps: Mapping[str, Mapping[str, Tensor]]
    """For each teacher's name its tapped leaves, without gradients."""
    samples: Any
    """The batch's ``data_samples``: where labels, boxes and the like are."""
    model: nn.Module | None = None
    """The student itself."""
    inputs: Tensor | None = None
    """``(B, 3, H, W)``, normalised for the student."""
    labelled: bool = True
    """False for a batch of images without labels: nothing may be asked of them there."""
    found: dict[Any, Any] = field(default_factory=dict)
    """What one term worked out and others need as well."""

    def teacher(self, name: str) -> Teacher | None:
        """Return the teacher of this name, None if it is not one of this step's."""
        return next((one for one in self.teachers if one.name == name), None)


Fact = Callable[[Step], Any]
_FACTS: dict[str, Fact] = {}
_OF_LABELS: set[str] = set()
_MISSING = object()


def fact(name: str, of_labels: bool = False) -> Callable[[Fact], Fact]:
    """Register a function of the step whose value a loss gets if its ``forward`` names it.

    The function is called once a step at most; it returns None where the batch does not tell.

    Args:
        name: of the parameter.
        of_labels: whether only labels tell it.
    """
    def register(function: Fact) -> Fact:
        _FACTS[name] = function
        if of_labels:
            _OF_LABELS.add(name)
        return function
    return register


def known_facts() -> list[str]:
    """Return the names of all registered facts."""
    return sorted(_FACTS)


def facts_of_labels() -> set[str]:
    """Return the names of the facts that only labels can tell."""
    return set(_OF_LABELS)


@fact('student_model')
def _student_model(step: Step) -> nn.Module | None:
    """The student, to be called as a function."""
    return step.model


@fact('input_size')
def _input_size(step: Step) -> tuple[int, int] | None:
    """``(H, W)`` of the batch in pixels."""
    return None if step.inputs is None else tuple(step.inputs.shape[-2:])


def facts_for(wanted: Mapping[str, bool], step: Step, given: Mapping[str, Any], term: str,
              loss: str) -> dict[str, Any]:
    """Return what a loss asks for by name.

    Looked up in this order: what the term itself gives, the registered facts, and the attributes of
    the batch's sample (of classifiers, one for the whole batch: ``labels``, ``indices``).

    Args:
        wanted: names, and whether the loss must have them.
        step: of the batch.
        given: by the term.
        term: its name.
        loss: its type.

    Raises:
        UserError: the loss must have one that nobody gives.
    """
    found = {}
    for name, needed in wanted.items():
        value = given.get(name, _MISSING)
        if value is _MISSING:
            value = _fact_of(name, step)
        if value is not None:
            found[name] = value
        elif needed:
            hint = did_you_mean(name, [*_FACTS, *given]) if name not in _FACTS else ''
            raise UserError(f"term '{term}': {loss} needs `{name}` of every batch, and the "
                            'training data does not give it: use a data set whose data samples '
                            f'have it, and no mixing of images.{hint}')
    return found


def _fact_of(name: str, step: Step) -> Any:
    key = 'fact', name
    if key not in step.found:
        value = _FACTS[name](step) if name in _FACTS else None
        step.found[key] = getattr(step.samples, name, None) if value is None else value
    return step.found[key]
