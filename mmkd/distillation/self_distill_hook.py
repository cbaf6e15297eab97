"""A term of a network that is its own teacher, or of networks that teach each other."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from torch import Tensor, nn

from mmkd.distillation.distill_hook import DistillHook, Step
from mmkd.distillation.taps import expand_taps
from mmkd.errors import UserError
from mmkd.registry import HOOKS, MODELS

__all__ = ['SelfDistillHook']


class _Itself(NamedTuple):
    """The student where a term expects a teacher."""

    model: nn.Module | None = None
    name: str = 'student'

    def expand(self, taps: str | Sequence[str]) -> list[str]:
        """As a teacher's."""
        return expand_taps(self.model, taps)


@HOOKS.register_module()
class SelfDistillHook(DistillHook):
    """One term between values of the student itself; no teacher.

    A loss of two features is summed over the taps ``f_1 .. f_L`` and what comes next in the
    network: ``weight * sum_l L(connector_l(f_l), f_{l+1})``. ``teacher_tap`` names other pairs.
    A loss whose class is ``multi_level`` takes all of them at once, ``weight * L(connector(f))``:
    the values of all members of a cohort, or everything that a method with auxiliary heads needs.

    Args: as of :class:`~mmkd.distillation.DistillHook`, ``teacher_tap`` as said above.

    Raises:
        UserError: as there; and when the run starts, if a single tap has no next one.
    """

    default_name = 'self_distill'
    needs_teachers = False

    def __init__(self, loss: dict, tap: str | Sequence[str],
                 teacher_tap: str | Sequence[str] | None = None, weight: float | None = 1.0,
                 connector: dict | None = None, name: str | None = None,
                 warmup_epochs: int = 0, warmup: str = 'linear') -> None:
        super().__init__(loss, tap, teacher_tap, weight, connector, name, warmup_epochs, warmup)
        self.teacher_tap = teacher_tap

    def resolve_taps(self, student: nn.Module, teachers: Sequence[Any]) -> None:
        """Find the modules that the taps name; see the base class."""
        if self.teacher_tap is not None:
            super().resolve_taps(student, [_Itself(student)])
            return
        taps = theirs = expand_taps(student, self.tap)
        if not getattr(MODELS.get(self.loss_config['type']), 'multi_level', False):
            if len(taps) < 2:
                raise UserError(f"term '{self.name}' taps '{taps[0]}' alone, and "
                                f"{self.loss_config['type']} compares two layers: name several "
                                'taps, or a `teacher_tap`')
            taps, theirs = taps[:-1], taps[1:]
        self.taps, self.teacher_taps = taps, {_Itself().name: theirs}

    def student_taps(self) -> list[str]:
        """Return what must be recorded of the student; see the base class."""
        return [*self.taps, *self.teacher_taps[_Itself().name]]

    def sources(self, step: Step) -> list[tuple[Any, float]]:
        """Return the student as the only one that teaches; see the base class."""
        return [(_Itself(), 1.0)]

    def features(self, step: Step, teacher: Any) -> tuple[list[Tensor], list[Tensor]]:
        """Pick this term's tensors out of the student's taps; see the base class."""
        return super().features(replace(step, taps={teacher.name: step.student}), teacher)
