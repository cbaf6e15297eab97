"""Teachers and terms beside a student, in any training loop."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmkd.distillation.branch_optimizer import Terms, trainable
from mmkd.distillation.dry_run import bare, rehearse
from mmkd.distillation.entries import build_entry, built_terms, check_names, checked_entries
from mmkd.distillation.gradients import (
    INTERVAL,
    BalancedWeight,
    check_gradients_flow,
    gradient_norm,
    own_loss,
    tapped_tensors,
)
from mmkd.distillation.step import Step
from mmkd.distillation.student_teachers import FloatTeacher, MeanTeacher
from mmkd.distillation.taps import TapRecorder
from mmkd.distillation.teachers import Teacher
from mmkd.distillation.term import Term
from mmkd.errors import UserError, did_you_mean
from mmkd.random_state import undisturbed_random_state

__all__ = ['MEAN_TEACHERS_KEY', 'Distillation', 'checked_schedule']

SCHEDULES = ('joint', 'progressive')
CHECKPOINT_KEY = 'distillation'
WEIGHTS_KEY = 'distillation_weights'
MEAN_TEACHERS_KEY = 'mean_teachers'


class Distillation:
    """What teachers add to a student's loss; :class:`DistillationHook` is this inside a runner.

    In a loop of your own, for any two ``nn.Module``::

        distillation = mmkd.Distillation(
            student, teachers=dict(big=big),
            terms=dict(features=dict(tap='layer3', loss=dict(type='PKDLoss'), weight=5.0),
                       logits=dict(tap='fc', loss=dict(type='KDLoss'), weight=1.0)))
        distillation.prepare(images)         # any batch: it shows the shapes
        optimizer = torch.optim.SGD([*student.parameters(), *distillation.parameters()], lr=0.1)
        for images, labels in loader:
            with distillation.recording():
                logits = student(images)
            own = F.cross_entropy(logits, labels)
            losses = distillation.losses(images, dict(labels=labels))
            (own + sum(losses.values())).backward()
            ...

    The student stays what it is: while it records, its tapped modules have a ``forward`` that also
    keeps what it returned; nothing is left in its ``state_dict``.

    Args:
        student: any network.
        teachers: by name a network that takes the student's own inputs; or an entry as in a config,
            ``dict(config=..., checkpoint=...)``, of a student that has a ``data_preprocessor``;
            ``dict(ema=0.999)``; or a :class:`Teacher`. Not needed if no term asks for one.
        terms: by name the config of a :class:`Term`, or such a term.
        weights: of the terms by name, where these have none themselves.
        schedule: ``'joint'`` or ``'progressive'``, see :class:`DistillationHook`; one that is
            progressive, like warm-ups and ends of terms, needs :meth:`advance`.

    Raises:
        UserError: a teacher, a term or a weight is wrong, or a term learns from nobody.
    """

    def __init__(self, student: nn.Module, teachers: Mapping[str, Any] | None = None,
                 terms: Mapping[str, Any] | None = None, *,
                 weights: Mapping[str, float] | Sequence[float] | None = None,
                 schedule: str = 'joint') -> None:
        self.student = student
        self.schedule = checked_schedule(schedule)
        self.terms: list[Term] = built_terms(terms, weights)
        if any(term.needs_teachers for term in self.terms):
            check_names(self.terms, teachers or {})
        self.teachers = [_teacher(name, one, student) for name, one in (teachers or {}).items()]
        self.active = self.teachers
        """The teachers of this iteration."""
        self.balanced = {term.name: BalancedWeight(term.gradient_share) for term in self.terms
                         if term.gradient_share is not None}
        """The weights that set themselves, by term."""
        self.iteration = 0
        self._flows = False
        self._records = False

    def prepare(self, inputs: Tensor, samples: Any = None, run: Callable[[], Any] | None = None,
                dataset: Any = None, labelled: bool = True) -> None:
        """Let everything see one batch; connectors and losses are built for what they saw.

        Neither the student nor the random state is changed by it.

        Args:
            inputs: ``(B, 3, H, W)`` of at least two images, as the student takes them.
            samples: as of :meth:`losses`.
            run: how the student computes what is tapped; None for ``student(inputs)``.
            dataset: the training data, for losses that ask for all of its ``labels``.
            labelled: as of :meth:`losses`.

        Raises:
            UserError: a tap is never passed or stands for several tensors, or two leaves do not
                fit.
        """
        for term in self.terms:
            term.meet(self.student, [one for one in self.teachers if term.learns_from(one.name)])
        self._recorder = TapRecorder(self.student, [tap for term in self.terms
                                                    for tap in term.student_patterns()])
        with undisturbed_random_state():
            rehearse(run or (lambda: self.student(inputs)), inputs, _with_attributes(samples),
                     self.student, self._recorder, self.teachers, self.terms, dataset, labelled)
        self.module: nn.Module = Terms(self.terms).to(inputs.device).train()
        """Computes the terms; one may put it into DistributedDataParallel."""

    def parameters(self) -> list[nn.Parameter]:
        """Return what is trained beside the student: of connectors, and of some losses."""
        return trainable(self.module)

    def advance(self, iteration: int, iterations: int, epoch: int = 0) -> None:
        """Choose the teachers of an iteration, and let weights rise and terms end.

        Args:
            iteration: that comes, from 0.
            iterations: of the whole training.
            epoch: from 0.
        """
        self.iteration = iteration
        for term in self.terms:
            ended = term.ended
            term.begin_epoch(epoch, iteration / iterations)
            if term.ended and not ended:
                print_log(f"Term '{term.name}' ends here, as until={term.until} says", 'current')
        if self.schedule == 'progressive' and self.teachers:
            stage = len(self.teachers) * iteration // iterations
            self.active = self.teachers[min(stage, len(self.teachers) - 1):][:1]

    def start(self) -> None:
        """Record from now on what the student's tapped modules give."""
        self._recorder.start()
        self._records = True

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record what the student's tapped modules give inside the ``with``."""
        self.start()
        try:
            yield
        except BaseException:
            self._records = False
            raise
        finally:
            self._recorder.stop()

    def losses(self, inputs: Tensor, samples: Any = None,
               own: Tensor | Mapping[str, Any] | None = None, *, labelled: bool = True
               ) -> dict[str, Tensor]:
        """Return each term's loss, times its weight, by its name.

        Args:
            inputs: of this batch.
            samples: what losses may ask for by name: an object or a dict that has ``labels``,
                ``indices`` and the like, or MMDetection's data samples.
            own: the student's own loss or losses; needed by terms with a ``gradient_share``.
            labelled: False for a batch of images without labels. A weight that sets itself is
                then as the last labelled batch left it.

        Raises:
            UserError: the student has not been recorded, or a term cannot teach.
        """
        step = self.step(inputs, samples, labelled)
        [raw] = self.compute(step)
        return self.weighted(raw, step, dict(loss=own) if isinstance(own, Tensor) else own)

    def step(self, inputs: Tensor, samples: Any = None, labelled: bool = True) -> Step:
        """Return what the student gave, and run the teachers."""
        if not self._records:
            raise UserError('the student was not recorded: call it inside `with '
                            'distillation.recording():`, once before each call of losses()')
        self._records = False
        student, shared = self._recorder.take(), {}
        running = [term for term in self.terms if not term.ended]
        teachers = [teacher for teacher in self.active
                    if any(term.learns_from(teacher.name) for term in running)]
        samples = _with_attributes(samples)
        taps = {teacher.name: teacher(inputs, samples, shared) for teacher in teachers}
        return Step(student, teachers, taps, samples, self.student, inputs, labelled)

    def compute(self, *steps: Step) -> list[dict[str, Tensor]]:
        """Return for each step each term's loss without its weight."""
        # Several processes wait for the gradients of a module that they call.
        raw = (bare(self.module) if self.ended else self.module)(*steps)
        if not self._flows and torch.is_grad_enabled():
            check_gradients_flow(self.terms, steps[0])
            self._flows = True
        return raw

    @property
    def ended(self) -> bool:
        """Whether all terms have ended."""
        return all(term.ended for term in self.terms)

    def weighted(self, raw: Mapping[str, Tensor], step: Step,
                 own: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
        """Return each term's loss times its weight, which may set itself."""
        losses = {}
        for term in self.terms:
            loss = raw[term.name]
            balanced = self.balanced.get(term.name)
            due = step.labelled and self.iteration % INTERVAL == 0 and torch.is_grad_enabled()
            if balanced and due:
                if own is None:
                    raise UserError(f"term '{term.name}' has a gradient_share, which is measured "
                                    "against the student's own loss: give it as "
                                    'losses(inputs, samples, own=loss)')
                tensors = tapped_tensors(term, step)
                balanced.update(gradient_norm(own_loss(own), tensors),
                                gradient_norm(loss, tensors))
            losses[term.name] = self.weight_of(term.name) * loss
        return losses

    def weight_of(self, name: str) -> float:
        """Return the weight that a term has now."""
        balanced = self.balanced.get(name)
        if balanced is not None and balanced.value is not None:
            return balanced.value
        return next(term.weight for term in self.terms if term.name == name)

    @property
    def mean_teachers(self) -> list[MeanTeacher]:
        """The teachers that follow the student."""
        return [teacher for teacher in self.teachers if isinstance(teacher, MeanTeacher)]

    def after_step(self) -> None:
        """Let mean teachers follow the student; to be called after each step of the optimizer."""
        for teacher in self.mean_teachers:
            teacher.update(self.student)

    def freeze_float_teachers(self) -> None:
        """Let teachers that are the student in float stay what they are now."""
        for teacher in self.mean_teachers:
            if isinstance(teacher, FloatTeacher):
                teacher.freeze()

    def state_dict(self) -> dict[str, Any]:
        """Return what has to be saved beside the student: connectors, weights, mean teachers."""
        state: dict[str, Any] = {}
        for teacher in self.mean_teachers:
            state.setdefault(MEAN_TEACHERS_KEY, {})[teacher.name] = teacher.average.state_dict()
        if self.balanced:
            state[WEIGHTS_KEY] = {name: one.value for name, one in self.balanced.items()}
        for (term, teacher), branch in self._branches().items():
            state.setdefault(CHECKPOINT_KEY, {}).setdefault(term, {})[teacher] = branch.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned; other entries are passed over.

        Raises:
            UserError: it is of other terms or teachers.
        """
        own, theirs = self._branches(), _saved_branches(state)
        if set(own) != set(theirs):
            raise UserError(f'cannot resume: the checkpoint has connectors for {sorted(theirs)}, '
                            f'the config for {sorted(own)}: resume with the terms and teachers it '
                            'was trained with')
        for key, branch in own.items():
            branch.load_state_dict(theirs[key])
        for name, balanced in self.balanced.items():
            balanced.value = state.get(WEIGHTS_KEY, {}).get(name)
        for teacher in self.mean_teachers:
            average = state.get(MEAN_TEACHERS_KEY, {}).get(teacher.name)
            if average is None:
                raise UserError("cannot resume: the checkpoint has no mean teacher "
                                f"'{teacher.name}': resume with the teachers it was trained with")
            teacher.average.load_state_dict(average)

    def load_matching(self, state: Mapping[str, Any]) -> list[str]:
        """Take what terms trained in another run, where term, teacher and shapes agree.

        Args:
            state: what :meth:`state_dict` returned there.

        Returns:
            ``'term (teacher)'`` for each that was taken.
        """
        theirs, taken = _saved_branches(state), []
        for (term, teacher), branch in self._branches().items():
            saved = theirs.get((term, teacher), {})
            if _shapes(saved) == _shapes(branch.state_dict()):
                branch.load_state_dict(saved)
                taken.append(f'{term} ({teacher})')
        return taken

    def _branches(self) -> dict[tuple[str, str], nn.Module]:
        """By term and teacher, those that have something to save."""
        return {(term.name, source): branch for term in self.terms
                for source, branch in term.branches.items() if branch.state_dict()}


def _saved_branches(state: Mapping[str, Any]) -> dict[tuple[str, str], Mapping[str, Any]]:
    """By term and teacher, what a checkpoint has; it may be of another framework."""
    terms = state.get(CHECKPOINT_KEY)
    return {(term, teacher): branch
            for term, branches in (terms.items() if isinstance(terms, Mapping) else ())
            for teacher, branch in (branches.items() if isinstance(branches, Mapping) else ())
            if isinstance(branch, Mapping)}


def _shapes(state: Mapping[str, Any]) -> dict[str, torch.Size | None]:
    return {name: getattr(value, 'shape', None) for name, value in state.items()}


def checked_schedule(schedule: str) -> str:
    """Return the name of a schedule if there is one of that name.

    Raises:
        UserError: there is none of that name.
    """
    if schedule not in SCHEDULES:
        raise UserError(f'a distillation has schedule={schedule!r}: give one of '
                        f'{", ".join(SCHEDULES)}.{did_you_mean(str(schedule), SCHEDULES)}')
    return schedule


def _teacher(name: str, given: Any, student: nn.Module) -> Teacher:
    if isinstance(given, Teacher):
        return given
    device = next(student.parameters()).device
    if isinstance(given, nn.Module):
        return Teacher(name, given.to(device))
    [entry] = checked_entries({name: given}).values()
    if 'checkpoint' in entry and not hasattr(student, 'data_preprocessor'):
        raise UserError(f"teacher '{name}' is built from a config, which says how its inputs are "
                        f'normalised, and the student ({type(student).__name__}) does not say how '
                        'its own are: build a teacher that takes the same inputs, and give the '
                        'network itself')
    return build_entry(name, entry, student, device)


def _with_attributes(samples: Any) -> Any:
    return SimpleNamespace(**samples) if isinstance(samples, Mapping) else samples
