"""Which of the student's leaves meets which of a teacher's, and what a config's taps stand for."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from mmkd.distillation.taps import Tapped
from mmkd.errors import UserError

__all__ = ['MATCHES', 'Taps', 'grouped', 'leaves_in', 'paired', 'patterns_in', 'picked']

MATCHES = ('order', 'stride')
Taps = str | Sequence[str] | Mapping[str, str | Sequence[str]]
"""What a config's entry of taps may be: one, several, or groups of them."""
Leaves = Sequence[tuple[str, Tensor]]


def paired(student: Leaves, teacher: Leaves, match: str, input_width: int, term: str,
           name: str) -> tuple[list[str], list[str]]:
    """Return the names of the student's leaves and of those that they meet.

    Args:
        student: leaves with their names; one may stand there twice.
        teacher: likewise.
        match: ``'order'`` or ``'stride'``, which begins with the finest.
        input_width: in pixels.
        term: its name, for messages.
        name: the teacher's.

    Raises:
        UserError: nothing can be paired.
    """
    if match == 'order':
        if len(student) == len(teacher):
            return [leaf for leaf, _ in student], [leaf for leaf, _ in teacher]
        raise UserError(
            f"term '{term}' joins {len(student)} taps of the student "
            f"({_listed(student, input_width)}) to {len(teacher)} of teacher '{name}' "
            f"({_listed(teacher, input_width)}): name as many of each with `tap` and "
            "`teacher_tap`, or pair those of equal stride with match='stride'")
    theirs: dict[int | None, list[str]] = {}
    for leaf, tensor in teacher:
        theirs.setdefault(_stride(tensor, input_width), []).append(leaf)
    # Finest first, as ReviewConnector wants them: YOLOv3's neck begins with the coarsest.
    own = sorted((stride, place, leaf) for place, (leaf, tensor) in enumerate(student)
                 if (stride := _stride(tensor, input_width)) is not None)
    # Of a small image the coarsest levels are one cell each: then the first meets the first.
    pairs = [(leaf, several[0] if len(several) == 1 else several.pop(0))
             for stride, _, leaf in own if (several := theirs.get(stride, []))]
    if not pairs:
        raise UserError(
            f"term '{term}' finds no two maps of equal stride: the student has "
            f"{_listed(student, input_width)}, teacher '{name}' {_listed(teacher, input_width)}; "
            "tap other layers, or pair them in order with match='order' and size='student'")
    return [own for own, _ in pairs], [other for _, other in pairs]


def _stride(tensor: Tensor, input_width: int) -> int | None:
    return round(input_width / tensor.shape[-1]) if tensor.dim() == 4 else None


def _listed(leaves: Leaves, input_width: int) -> str:
    return ', '.join(name if (stride := _stride(tensor, input_width)) is None else
                     f'{name} of stride {stride}' for name, tensor in leaves)


def patterns_in(taps: Taps) -> list[str]:
    """Return every tap of a config's entry."""
    if isinstance(taps, str):
        return [taps]
    groups = taps.values() if isinstance(taps, Mapping) else [taps]
    return [tap for group in groups for tap in ([group] if isinstance(group, str) else group)]


def leaves_in(leaves: Sequence[str] | Mapping[str, Sequence[str]]) -> list[str]:
    """Return every leaf of a list, or of a dict of lists."""
    if isinstance(leaves, Mapping):
        return [leaf for group in leaves.values() for leaf in group]
    return list(leaves)


def picked(values: Mapping[str, Tensor], leaves: Sequence[str] | Mapping[str, Sequence[str]]
           ) -> list[Tensor] | dict[str, list[Tensor]]:
    """Return the tensors of leaves, in the same lists."""
    if isinstance(leaves, Mapping):
        return {name: [values[leaf] for leaf in group] for name, group in leaves.items()}
    return [values[leaf] for leaf in leaves]


def grouped(taps: Mapping[str, Any], tapped: Tapped) -> dict[str, list[str]]:
    """Return the leaves of each group of taps."""
    return {group: [leaf for tap in patterns_in(entry) for leaf in tapped[tap]]
            for group, entry in taps.items()}
