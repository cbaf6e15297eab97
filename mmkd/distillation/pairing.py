"""Which of the student's leaves meets which of a teacher's."""

from collections.abc import Sequence

from torch import Tensor

from mmkd.errors import UserError

__all__ = ['MATCHES', 'paired']

MATCHES = ('order', 'stride')
Leaves = Sequence[tuple[str, Tensor]]


def paired(student: Leaves, teacher: Leaves, match: str, input_width: int, term: str,
           name: str) -> tuple[list[str], list[str]]:
    """Return the names of the student's leaves and of those that they meet.

    Args:
        student: leaves with their names; one may stand there twice.
        teacher: likewise.
        match: ``'order'`` or ``'stride'``.
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
    theirs = {_stride(tensor, input_width): leaf for leaf, tensor in teacher}
    pairs = [(leaf, theirs[stride]) for leaf, tensor in student
             if (stride := _stride(tensor, input_width)) is not None and stride in theirs]
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
