"""A term of a network that is its own teacher, or of networks that teach each other."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmkd.distillation.branch import Features
from mmkd.distillation.pairing import patterns_in, picked
from mmkd.distillation.step import Step
from mmkd.distillation.taps import Tapped
from mmkd.distillation.term import Term
from mmkd.errors import UserError
from mmkd.registry import MODELS, TERMS

__all__ = ['SelfTerm']

ITSELF = 'student'


@TERMS.register_module()
class SelfTerm(Term):
    """One term between values of the student itself; no teacher.

    A loss of two features is summed over the taps ``f_1 .. f_L`` and what comes next in the
    network: ``weight * sum_l L(connector_l(f_l), f_{l+1})``. ``teacher_tap`` names other pairs.
    A loss whose class is ``multi_level`` takes all of them at once, ``weight * L(connector(f))``:
    the values of all members of a cohort, or everything that a method with auxiliary heads needs.

    Args: as of :class:`~mmkd.distillation.Term`, ``teacher_tap`` as said above.

    Raises:
        UserError: as there; and when the run starts, if a single tap has no next one.
    """

    needs_teachers = False

    def __init__(self, loss: dict, tap: str | Sequence[str],
                 teacher_tap: str | Sequence[str] | None = None, weight: float | None = None,
                 connector: dict | None = None, warmup_epochs: int = 0,
                 warmup: str = 'linear', until: float | None = None) -> None:
        super().__init__(loss, tap, teacher_tap, weight, connector, warmup_epochs=warmup_epochs,
                         warmup=warmup, until=until)
        self.teacher_tap = teacher_tap

    def student_patterns(self) -> list[str]:
        """Return what must be recorded of the student; see the base class."""
        return patterns_in(self.tap) + patterns_in(self.teacher_tap or [])

    def teacher_patterns(self) -> list[str]:
        """Return nothing: there is no teacher."""
        return []

    def pair(self, student: Tapped, teachers: Mapping[str, Tapped], step: Step) -> None:
        """Find which leaves meet; see the base class."""
        if self.teacher_tap is not None:
            super().pair(student, {ITSELF: student}, step)
            return
        taps = theirs = [leaf for tap in patterns_in(self.tap) for leaf in student[tap]]
        if not getattr(MODELS.get(self.loss_config['type']), 'multi_level', False):
            if len(taps) < 2:
                raise UserError(f"term '{self.name}' taps '{taps[0]}' alone, and "
                                f"{self.loss_config['type']} compares two layers: name several "
                                'taps, or a `teacher_tap`')
            taps, theirs = taps[:-1], taps[1:]
        self.pairs[ITSELF] = taps, theirs

    def sources(self, step: Step) -> list[tuple[str, Any]]:
        """Return the student as the only one that teaches; see the base class."""
        return [(ITSELF, 1.0)]

    def features(self, step: Step, source: str) -> tuple[Features, Features]:
        """Pick this term's tensors out of the student's leaves; see the base class."""
        student, teacher = self.pairs[source]
        return picked(step.student, student), picked(step.student, teacher)
