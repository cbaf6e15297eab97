"""One distillation term of a run."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.distillation.branch import (
    SIZES,
    Branch,
    Features,
    InputError,
    names_of_facts,
    takes_teacher,
)
from mmkd.distillation.pairing import (
    MATCHES,
    Taps,
    grouped,
    leaves_in,
    paired,
    patterns_in,
    picked,
)
from mmkd.distillation.step import Step, facts_for, facts_of_labels
from mmkd.distillation.taps import Tapped
from mmkd.distillation.teacher_connectors import built_teacher_connector
from mmkd.distillation.teachers import Teacher
from mmkd.errors import UserError, did_you_mean
from mmkd.registry import MODELS, TERMS
from mmkd.teacher_cache.codecs import Codec, DenseCodec

__all__ = ['Term', 'shares']

WARMUPS = {'linear': lambda x: x, 'gaussian': lambda x: math.exp(-5 * (1 - x) ** 2)}
Share = float | Tensor


@TERMS.register_module()
class Term:
    """One term: ``weight * sum_k a_k sum_l L(connector_kl(student_l), teacher_kl)``.

    ``l`` counts the pairs of tapped leaves, see :mod:`mmkd.distillation.tap_paths` for what can be
    tapped and :class:`mmkd.distillation.branch.Branch` for how a pair is compared. ``a_k`` are the
    teachers' weights, normalised to sum to one, so that a weight means the same for one teacher and
    for many. A subclass that joins teachers otherwise overrides :meth:`sources` and
    :meth:`features`.

    A loss is called as ``loss(student, teacher)``; whatever else its ``forward`` takes
    (``labels``, ``boxes``) it gets by that name, see :mod:`mmkd.distillation.step`. A loss that
    takes ``warmup`` gets the factor of the warm-up and applies it to those of its parts that its
    paper warms up; any other is multiplied by it.

    Args:
        loss: registry config of the loss.
        tap: the student's tap or taps. A dict of such groups hands the loss two dicts of lists,
            which nothing pairs.
        teacher_tap: the teachers' taps; None for the same names.
        weight: factor of the term; a number >= 0, or None to take it from ``distill_weights`` in
            the config. At 0 the term is left out.
        connector: registry config of the trainable adapter from student to teacher, or None.
        teacher_connector: registry config of what is done to the teacher's leaves before they are
            compared, or None; see :mod:`mmkd.distillation.teacher_connectors`.
        match: how leaves are paired: ``'order'``, the first with the first, as many of each; or
            ``'stride'``, those whose cells have the same size in pixels, the others left out.
        size: where two maps differ in size, to which the other is brought behind the connector:
            ``'student'``, ``'teacher'`` or ``'smaller'``; None to leave that to the loss.
        warmup_epochs: epochs over which the weight rises, with ``x = min(e / warmup_epochs, 1)`` in
            epoch ``e`` (from 1; a pass over the data, whatever the loop counts).
        warmup: ``'linear'``, by the factor ``x``, or ``'gaussian'``, by ``exp(-5 (1 - x)^2)``, the
            ramp of A. Tarvainen, H. Valpola, "Mean teachers are better role models", NeurIPS 2017,
            arXiv 1703.01780.
        until: when the term ends and the student goes on without it: a whole number of epochs,
            counted as those of the warm-up, or the share of the run, above 0 and below 1. None for
            never. A teacher that no term asks any more does not run any more.
        gradient_share: in place of a weight the share of the gradient at the student's taps that
            the term has, see :class:`mmkd.distillation.gradients.BalancedWeight`.
        teachers: names of the teachers that the term learns from; None for all.

    Raises:
        UserError: an argument is out of its range.
    """

    needs_teachers = True
    from_the_model: tuple[str, ...] = ('teacher_model', )
    """Facts that only a teacher that is in memory can give."""
    name = 'term'
    """The term's key in ``terms``; it is logged as ``loss_distill_<name>``."""

    def __init__(self, loss: dict, tap: Taps, teacher_tap: Taps | None = None,
                 weight: float | None = None, connector: dict | None = None,
                 teacher_connector: dict | None = None, match: str = 'order',
                 size: str | None = None, warmup_epochs: int = 0, warmup: str = 'linear',
                 until: float | None = None, gradient_share: float | None = None,
                 teachers: Sequence[str] | None = None) -> None:
        self.weight = weight
        self.gradient_share = gradient_share
        self.loss_config = loss
        self.tap = tap
        self.teacher_tap = tap if teacher_tap is None else teacher_tap
        if isinstance(tap, Mapping) != isinstance(self.teacher_tap, Mapping):
            raise UserError('a term has groups of taps on one side alone: give `tap` and '
                            '`teacher_tap` the same groups')
        self.connector = connector
        self.teacher_connector = (None if teacher_connector is None else
                                  built_teacher_connector(teacher_connector))
        if teacher_connector is not None and isinstance(tap, Mapping):
            raise UserError('a term has a teacher_connector and groups of taps, which go to the '
                            'loss as they are: take the connector out')
        self.match = _one_of('match', match, MATCHES)
        self.size = _one_of('size', size, [None, *SIZES])
        self.warmup_epochs = warmup_epochs
        self.warmup = WARMUPS[_one_of('warmup', warmup, WARMUPS)]
        self.factor = 1.0
        self.until = _checked_end(until)
        self.ended = False
        self.teachers = teachers
        self.pairs: dict[str, Any] = {}
        """For each source the leaves of both sides, paired: two lists, or two dicts of lists."""
        self.branches: dict[str, Branch] = {}

    def begin_epoch(self, epoch: int, share: float = 0.0) -> None:
        """Let the weight rise during the warm-up, and end the term where ``until`` says so.

        Args:
            epoch: counts from 0.
            share: of the run that is behind.
        """
        if self.warmup_epochs:
            self.factor = self.warmup(min((epoch + 1) / self.warmup_epochs, 1.0))
        if self.until is not None:
            self.ended = (epoch if isinstance(self.until, int) else share) >= self.until

    def learns_from(self, teacher: str) -> bool:
        """Tell whether a teacher, by its name, teaches this term."""
        return self.needs_teachers and (self.teachers is None or teacher in self.teachers)

    def teachers_of(self, step: Step) -> list[Teacher]:
        """Return those of a step's teachers that the term learns from."""
        return [teacher for teacher in step.teachers if self.learns_from(teacher.name)]

    @property
    def needs_model(self) -> bool:
        """Whether the teachers must be there in every step: a cache cannot stand for them."""
        loss = MODELS.get(self.loss_config['type'])
        return loss is not None and bool(names_of_facts(loss).keys() & set(self.from_the_model))

    @property
    def needs_labels(self) -> Sequence[str]:
        """What the term must have and only labels tell; empty if it can do without them."""
        loss = MODELS.get(self.loss_config['type'])
        facts = names_of_facts(loss, self.needs_teachers or takes_teacher(loss))
        return [name for name, needed in facts.items() if needed and name in facts_of_labels()]

    def check_unlabelled(self, step: Step) -> None:
        """Make sure that the term can be computed without labels; called once, after `prepare`.

        Args:
            step: of images without labels.

        Raises:
            UserError: it asks for something that is not there.
        """
        for source, _ in self.sources(step):
            self.features(step, source)
            self.facts(self.branches[source], step, source)

    def meet(self, student: nn.Module, teachers: Sequence[Teacher]) -> None:
        """Look at the models before any of them runs; a subclass refuses those that do not fit.

        Args:
            student: the model.
            teachers: those that the term learns from.

        Raises:
            UserError: one does not fit.
        """

    def student_patterns(self) -> list[str]:
        """Return what must be recorded of the student, as it stands in the config."""
        return patterns_in(self.tap)

    def teacher_patterns(self) -> list[str]:
        """Return what must be recorded of each teacher, as it stands in the config."""
        return patterns_in(self.teacher_tap)

    @property
    def taps(self) -> list[str]:
        """The student's leaves that the term teaches."""
        found = [leaves_in(student) for student, _ in self.pairs.values()]
        return list(dict.fromkeys(leaf for leaves in found for leaf in leaves))

    def pair(self, student: Tapped, teachers: Mapping[str, Tapped], step: Step) -> None:
        """Find which leaves meet, after the dry run.

        Args:
            student: the student's taps with their leaves.
            teachers: those of each teacher.
            step: what the dry run gave.

        Raises:
            UserError: they are not as many, or no two have the same stride.
        """
        for name, theirs in teachers.items():
            if isinstance(self.tap, Mapping):
                self.pairs[name] = grouped(self.tap, student), grouped(self.teacher_tap, theirs)
                continue
            own, others = ([(leaf, tensor) for tap in patterns_in(taps)
                            for leaf, tensor in tapped[tap].items()]
                           for taps, tapped in ((self.tap, student), (self.teacher_tap, theirs)))
            seen = self.seen_of_teacher(step, name, [tensor for _, tensor in others])
            others = [(leaf, tensor) for (leaf, _), tensor in zip(others, seen, strict=True)]
            self.pairs[name] = paired(own, others, self.match, step.inputs.shape[-1], self.name,
                                      name)

    def prepare(self, step: Step, dataset: Any) -> None:
        """Build what depends on shapes and data; called once, after :meth:`pair`.

        Args:
            step: what the dry run gave.
            dataset: the training data.

        Raises:
            UserError: a connector cannot join the features, the loss needs what the data does not
                give, or one of its arguments is out of range.
        """
        for source, _ in self.sources(step):
            student, theirs = self.features(step, source)
            self.branches[source] = branch = self._built(student, theirs, step, dataset)
            self.facts(branch, step, source)

    def _built(self, student: Features, teacher: Features, step: Step, dataset: Any) -> Branch:
        try:
            return Branch(self.loss_config, self.connector_for(student, teacher), student, teacher,
                          getattr(dataset, 'labels', None), step.model, self.size,
                          not self.needs_teachers)
        except InputError as error:
            raise UserError(f"term '{self.name}': {error}") from error

    def connector_for(self, student: Features, teacher: Features) -> dict | None:
        """Return the config of the connector for these features."""
        return self.connector

    def stored_as(self, dtype: str) -> dict[str, Codec]:
        """Return how a cache stores the leaves of each of the teachers' taps."""
        return dict.fromkeys(self.teacher_patterns(), DenseCodec(dtype))

    def sources(self, step: Step) -> list[tuple[str, Share]]:
        """Return who teaches, each with its share of the term: a scalar, or ``(B,)`` for images."""
        return shares(self.teachers_of(step))

    def features(self, step: Step, source: str) -> tuple[Features, Features]:
        """Pick this term's tensors out of the student's and a teacher's leaves."""
        student, teacher = self.pairs[source]
        return (picked(step.student, student),
                self.seen_of_teacher(step, source, picked(step.taps[source], teacher)))

    def seen_of_teacher(self, step: Step, source: str, leaves: Features) -> Features:
        """Return a teacher's leaves as ``teacher_connector`` makes them."""
        if self.teacher_connector is None:
            return leaves
        size = step.teacher(source).input_size(step.inputs.shape[-2:])
        try:
            return [self.teacher_connector(leaf, size) for leaf in leaves]
        except InputError as error:
            raise UserError(f"term '{self.name}', teacher '{source}': {error}") from error

    def facts(self, branch: Branch, step: Step, source: str) -> dict[str, Any]:
        """Return what a branch's loss asks for by name.

        Raises:
            UserError: nobody gives it.
        """
        return facts_for(branch.facts, step, self.own_facts(step, source), self.name,
                         self.loss_config['type'])

    def own_facts(self, step: Step, source: str) -> dict[str, Any]:
        """Return what the term itself can tell a loss."""
        return dict(warmup=self.factor,
                    teacher_model=getattr(step.teacher(source), 'model', None))

    def compute(self, step: Step) -> Tensor:
        """Return the term without its weight, a scalar; 0 once it has ended."""
        terms = []
        for source, share in [] if self.ended else self.sources(step):
            branch = self.branches[source]
            facts = self.facts(branch, step, source)
            if isinstance(share, Tensor) and share.dim():
                facts['image_weights'], share = share, 1.0
            if 'warmup' not in facts:
                share = share * self.factor
            terms.append(share * self.apply(branch, *self.features(step, source), facts))
        if not terms:  # of teachers that take turns, this one has nothing to say to the term
            return torch.zeros((), device=next(iter(step.student.values())).device)
        return torch.stack(terms).sum()

    def apply(self, branch: nn.Module, student: Features, teacher: Features,
              facts: Mapping[str, Any]) -> Tensor:
        """Return a branch's loss.

        Raises:
            UserError: the loss cannot compare these features.
        """
        try:
            return branch(student, teacher, facts)
        except InputError as error:  # losses know only torch
            raise UserError(f"term '{self.name}': {error}") from error


def shares(teachers: Sequence[Teacher]) -> list[tuple[str, float]]:
    """Return each teacher's name with its weight divided by the sum of all weights."""
    total = sum(teacher.weight for teacher in teachers)
    return [(teacher.name, teacher.weight / total) for teacher in teachers]


def _checked_end(until: Any) -> float | None:
    whole = isinstance(until, int) and not isinstance(until, bool) and until > 0
    if until is None or whole or (isinstance(until, float) and 0 < until < 1):
        return until
    raise UserError(f'a term has until={until!r}: give a whole number of epochs, such as 280, or '
                    'the share of the run after which it ends, such as 0.9')


def _one_of(option: str, value: Any, allowed: Any) -> Any:
    if value not in list(allowed):
        names = [str(one) for one in allowed]
        raise UserError(f'a term has {option}={value!r}: give one of {", ".join(names)}.'
                        f'{did_you_mean(str(value), names)}')
    return value
