"""One distillation term of a run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from mmkd.distillation.branch import Branch
from mmkd.distillation.cache.codecs import Codec, DenseCodec
from mmkd.distillation.taps import expand_taps
from mmkd.distillation.teachers import Teacher
from mmkd.errors import UserError, did_you_mean
from mmkd.registry import HOOKS

__all__ = ['DistillHook', 'Step', 'shares']

WARMUPS = {'linear': lambda x: x, 'gaussian': lambda x: math.exp(-5 * (1 - x) ** 2)}


@dataclass
class Step:
    """What one batch gave."""

    student: Mapping[str, Any]
    """The student's taps by name, with gradients."""
    teachers: Sequence[Teacher]
    taps: Mapping[str, Mapping[str, Any]]
    """For each teacher's name its taps, without gradients."""
    samples: Any
    """The batch's ``data_samples``: where losses find labels and the like."""
    model: nn.Module | None = None
    """The student itself."""
    found: dict[Any, Any] = field(default_factory=dict)
    """What one term worked out and others need as well."""


@HOOKS.register_module()
class DistillHook(Hook):
    """One term: ``weight * sum_k a_k sum_l L(connector_kl(student_l), teacher_kl)``.

    ``l`` counts the taps, see :class:`mmkd.distillation.branch.Branch`. ``a_k`` are the teachers'
    weights, normalised to sum to one, so that a weight means the same for one teacher and for
    many. A subclass that joins teachers otherwise overrides :meth:`prepare` and :meth:`compute`.

    A loss is called as ``loss(student, teacher)``; whatever else its ``forward`` takes
    (``labels``, ``indices``) is found by that name in the batch's data samples. A loss that takes
    ``warmup`` gets the factor of the warm-up and applies it to those of its parts that its paper
    warms up; any other is multiplied by it.

    Args:
        loss: registry config of the loss.
        tap: the student's tap or taps, see :mod:`mmkd.distillation.taps`; wildcards allowed.
        teacher_tap: the teachers' taps; None for the same names.
        weight: factor of the term; a number >= 0, or None to take it by
            :attr:`position` from ``distill_weights`` in the config. At 0 the term is left out.
        connector: registry config of the trainable adapter from student to teacher, or None.
        name: the term is logged as ``loss_<name>``; None for :attr:`default_name`.
        warmup_epochs: epochs over which the weight rises, with ``x = min(e / warmup_epochs, 1)`` in
            epoch ``e`` (from 1).
        warmup: ``'linear'``, by the factor ``x``, or ``'gaussian'``, by ``exp(-5 (1 - x)^2)``, the
            ramp of A. Tarvainen, H. Valpola, "Mean teachers are better role models", NeurIPS 2017,
            arXiv 1703.01780.

    Raises:
        UserError: ``weight`` is negative or not a number, or ``warmup`` is neither.
    """

    default_name = 'distill'
    needs_teachers = True
    position: int | None = None
    """Place of the term's weight in ``distill_weights``."""

    def __init__(self, loss: dict, tap: str | Sequence[str],
                 teacher_tap: str | Sequence[str] | None = None, weight: float | None = 1.0,
                 connector: dict | None = None, name: str | None = None,
                 warmup_epochs: int = 0, warmup: str = 'linear',
                 gradient_share: float | None = None) -> None:
        self.name = name or self.default_name
        self.weight = weight if weight is None else _checked_weight(weight, self.name)
        self.gradient_share = _checked_share(gradient_share, self.name)
        self.loss_config = loss
        self.tap = tap
        self.teacher_tap = tap if teacher_tap is None else teacher_tap
        self.connector = connector
        if warmup not in WARMUPS:
            raise UserError(f"term '{self.name}' has warmup {warmup!r}: give one of "
                            f'{", ".join(WARMUPS)}.{did_you_mean(str(warmup), WARMUPS)}')
        self.warmup_epochs = warmup_epochs
        self.warmup = WARMUPS[warmup]
        self.factor = 1.0
        self.taps: list[str] = []
        self.teacher_taps: dict[str, list[str]] = {}
        self.branches: dict[str, nn.Module] = {}

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Let the weight rise during the warm-up."""
        if self.warmup_epochs:
            self.factor = self.warmup(min((runner.epoch + 1) / self.warmup_epochs, 1.0))

    def resolve_weight(self, distill_weights: Sequence[float] | None) -> None:
        """Take the weight from the config's ``distill_weights`` if the hook has none of its own.

        Raises:
            UserError: the config has none either, or it is negative or not a number.
        """
        if self.weight is not None:
            return
        if (self.position is None or not isinstance(distill_weights, (list, tuple))
                or len(distill_weights) <= self.position):
            raise UserError(f"term '{self.name}' has no weight: give `weight` in its hook or put "
                            '`distill_weights = (w1, w2, w3, w4)` into the config, not '
                            f'{distill_weights!r}')
        self.weight = _checked_weight(distill_weights[self.position], self.name)

    def resolve_taps(self, student: nn.Module, teachers: Sequence[Teacher]) -> None:
        """Find the modules that the taps name.

        Raises:
            UserError: a tap does not exist, or the student's and a teacher's differ in number.
        """
        self.taps = expand_taps(student, self.tap)
        for teacher in teachers:
            theirs = teacher.expand(self.teacher_tap)
            if len(theirs) != len(self.taps):
                raise UserError(
                    f"term '{self.name}' joins {len(self.taps)} taps of the student "
                    f"({', '.join(self.taps)}) to {len(theirs)} of teacher '{teacher.name}' "
                    f"({', '.join(theirs)}): name as many of each with `tap` and `teacher_tap`")
            self.teacher_taps[teacher.name] = theirs

    def prepare(self, step: Step, dataset: Any) -> None:
        """Build what depends on shapes and data; called once, after the dry run.

        Args:
            step: what the dry run gave.
            dataset: the training data.

        Raises:
            UserError: a connector cannot join the features, or the loss needs what the data
                does not give.
        """
        for teacher, _ in self.sources(step):
            student, theirs = self.features(step, teacher)
            branch = Branch(self.loss_config, self.connector_for(student, theirs), student, theirs,
                            getattr(dataset, 'labels', None), step.model)
            self.targets_of(branch, step.samples)
            self.branches[teacher.name] = branch

    def connector_for(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> dict | None:
        """Return the config of the connector for these features."""
        return self.connector

    def student_taps(self) -> list[str]:
        """Return what must be recorded of the student."""
        return self.taps

    def patterns(self) -> list[str]:
        """Return the names and wildcards that are tapped of the teachers."""
        return [self.teacher_tap] if isinstance(self.teacher_tap, str) else list(self.teacher_tap)

    def taps_of(self, teacher: Teacher) -> list[str]:
        """Return what must be recorded of a teacher."""
        return self.teacher_taps[teacher.name]

    def stored_as(self, dtype: str) -> dict[str, Codec]:
        """Return how a cache stores each of the teachers' taps or wildcards that the term needs."""
        return dict.fromkeys(self.patterns(), DenseCodec(dtype))

    def sources(self, step: Step) -> list[tuple[Teacher, float | Tensor]]:
        """Return who teaches, each with its share of the term: of all images, or ``(B,)``."""
        return shares(step.teachers)

    def features(self, step: Step, teacher: Teacher) -> tuple[list[Tensor], list[Tensor]]:
        """Pick this term's tensors out of the student's and a teacher's taps."""
        taps = step.taps[teacher.name]
        return ([_last_tensor(step.student[tap]) for tap in self.taps],
                [_last_tensor(taps[tap]) for tap in self.teacher_taps[teacher.name]])

    def compute(self, step: Step) -> Tensor:
        """Return the term without its weight, a scalar."""
        terms = []
        for teacher, share in self.sources(step):
            branch = self.branches[teacher.name]
            targets = self.targets_of(unwrapped(branch), step.samples)
            if isinstance(share, Tensor):
                targets['image_weights'], share = share, 1.0
            if 'warmup' not in targets:
                share *= self.factor
            terms.append(share * self.apply(branch, *self.features(step, teacher), targets))
        return torch.stack(terms).sum()

    def apply(self, branch: nn.Module, student: Sequence[Tensor], teacher: Sequence[Tensor],
              targets: dict[str, Any]) -> Tensor:
        """Return a branch's loss.

        Raises:
            UserError: the loss cannot compare these features.
        """
        try:
            return branch(student, teacher, targets)
        except ValueError as error:  # losses know only torch
            raise UserError(f"term '{self.name}': {error}") from error

    def targets_of(self, branch: Branch, samples: Any) -> dict[str, Any]:
        """Return what a branch's loss needs of the batch beside the features.

        Raises:
            UserError: the training data does not give it.
        """
        found = {name: getattr(samples, name) for name in branch.targets if hasattr(samples, name)}
        if 'warmup' in branch.targets:
            found['warmup'] = self.factor
        missing = [name for name, needed in branch.targets.items() if needed and name not in found]
        if missing:
            raise UserError(f"term '{self.name}': {self.loss_config['type']} needs `{missing[0]}` "
                            'of every batch, and the training data does not give it: use a data '
                            'set whose data samples have it, and no mixing of images')
        return found


def shares(teachers: Sequence[Teacher]) -> list[tuple[Teacher, float]]:
    """Each teacher with its weight over the sum of all weights."""
    total = sum(teacher.weight for teacher in teachers)
    return [(teacher, teacher.weight / total) for teacher in teachers]


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside DistributedDataParallel, or itself."""
    return module.module if isinstance(module, nn.parallel.DistributedDataParallel) else module


def _checked_weight(weight: Any, name: str) -> float:
    number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
    if not number or not math.isfinite(weight) or weight < 0:
        raise UserError(f"term '{name}' has weight {weight!r}: give a number of at least 0")
    return weight


def _checked_share(share: Any, name: str) -> float | None:
    if share is not None and (not isinstance(share, float) or not 0 < share < 1):
        raise UserError(f"term '{name}' has gradient_share={share!r}: give a number between 0 and "
                        '1, such as 0.3, or leave it out to keep the weight')
    return share


def _last_tensor(value: Any) -> Tensor:
    """Of nested outputs the last one: the finest level, the last stack."""
    while not isinstance(value, Tensor):
        value = list(value.values())[-1] if isinstance(value, dict) else value[-1]
    return value
