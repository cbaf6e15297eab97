"""How distillation enters a run.

The student stays a plain model; everything below hangs on it by PyTorch hooks for the
duration of a run::

    runner.train()
      before_run                TeacherHook builds the teachers, taps student and teachers, runs
                                all of them once (a dry run: shapes, in-place layers) and lets
                                every term build its connectors
      load_or_resume            connectors are restored with the checkpoint
      every iteration
        student(mode='loss')    pre-hook: start recording the student's taps
          ...                   the student computes its own losses
        forward hook            run each teacher once on the same inputs, ask every term for its
                                loss, add them as `loss_<term>`; mmengine sums and logs them
      before_save_checkpoint    connectors are saved under 'distillation', beside `state_dict`

Under DDP the student is called inside the wrapper, so the same hooks fire there.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.dataset import pseudo_collate
from mmengine.dist import is_distributed
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop, Runner
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mmkd.distillation.connectors import build_connector
from mmkd.distillation.taps import TapRecorder, forward_for_taps
from mmkd.distillation.teachers import Teacher, build_teacher, undisturbed_random_state
from mmkd.errors import UserError
from mmkd.registry import HOOKS, MODELS

__all__ = ['DistillHook', 'TeacherHook']

CHECKPOINT_KEY = 'distillation'


@HOOKS.register_module()
class DistillHook(Hook):
    """One term: ``weight * sum_k a_k L(connector_k(student), teacher_k)``.

    ``a_k`` are the teachers' weights, normalised to sum to one, so that a weight means the same
    for one teacher and for many. A subclass that joins teachers otherwise overrides
    :meth:`compute`.

    Args:
        loss: registry config of a loss called as ``loss(student, teacher)``.
        tap: the student's tap, see :mod:`mmkd.distillation.taps`.
        teacher_tap: the teachers' tap; None for the same name.
        weight: factor of the term; a number >= 0, or None to take it by
            :attr:`position` from ``distill_weights`` in the config. At 0 the term is left out.
        connector: registry config of the trainable adapter, used where the channels differ.
        name: the term is logged as ``loss_<name>``; None for :attr:`default_name`.

    Raises:
        UserError: ``weight`` is negative or not a number.
    """

    default_name = 'distill'
    position: int | None = None
    """Place of the term's weight in ``distill_weights``."""

    def __init__(self, loss: dict, tap: str, teacher_tap: str | None = None,
                 weight: float | None = 1.0, connector: dict | None = None,
                 name: str | None = None) -> None:
        self.name = name or self.default_name
        self.weight = weight if weight is None else _checked_weight(weight, self.name)
        self.loss = MODELS.build(loss)
        self.tap = tap
        self.teacher_tap = teacher_tap or tap
        self.connector = connector
        self.connectors: dict[str, nn.Module] = {}

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

    def prepare(self, student: Mapping[str, Any], teachers: Sequence[Teacher],
                taps: Mapping[str, Mapping[str, Any]], classes: Sequence[str] | None) -> None:
        """Build what depends on shapes and classes; called once, after the dry run.

        Args:
            student: the student's taps.
            teachers: the teachers.
            taps: for each teacher's name its taps.
            classes: the student's class names, or None if unknown.
        """
        for teacher in teachers:
            module = build_connector(self.connector, self.student_feature(student),
                                     self.teacher_feature(taps[teacher.name]))
            if module is not None:
                self.connectors[teacher.name] = module

    def student_feature(self, taps: Mapping[str, Any]) -> Tensor:
        """Pick this term's tensor out of the student's taps."""
        return _last_tensor(taps[self.tap])

    def teacher_feature(self, taps: Mapping[str, Any]) -> Tensor:
        """Pick this term's tensor out of a teacher's taps."""
        return _last_tensor(taps[self.teacher_tap])

    def compute(self, student: Mapping[str, Any], teachers: Sequence[Teacher],
                taps: Mapping[str, Mapping[str, Any]]) -> Tensor:
        """Return the unweighted term, a scalar.

        Args:
            student: the student's taps, with gradients.
            teachers: the teachers.
            taps: for each teacher's name its taps, without gradients.
        """
        feature = self.student_feature(student)
        terms = []
        for teacher, share in shares(teachers):
            connector = self.connectors.get(teacher.name, nn.Identity())
            target = self.teacher_feature(taps[teacher.name])
            terms.append(share * self.loss(connector(feature), target))
        return torch.stack(terms).sum()


@HOOKS.register_module()
class TeacherHook(Hook):
    """Builds the teachers and lets every :class:`DistillHook` of the run learn from them.

    Args:
        teachers: for each name ``dict(config=..., checkpoint=..., weight=1.0)``; None for the
            config's top-level ``teachers``.

    Raises:
        UserError: in ``before_run``: no teacher is named, an entry has other keys, what
            :func:`build_teacher` raises, a tap does not exist, or a term has no weight.
    """

    priority = 'HIGH'

    def __init__(self, teachers: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self._entries = teachers
        self.teachers: list[Teacher] = []
        self.terms: list[DistillHook] = []

    def before_run(self, runner: Runner) -> None:
        """Set distillation up, unless the run does not train or every weight is 0."""
        if not isinstance(runner._train_loop, BaseLoop):
            return
        self.terms = _active_terms(runner)
        if not self.terms:
            runner.logger.warning('No distillation term has a weight above 0: the student trains '
                                  'alone')
            return
        student = runner.model.module if is_model_wrapper(runner.model) else runner.model
        device = next(student.parameters()).device
        entries = runner.cfg.get('teachers') if self._entries is None else self._entries
        self.teachers = [build_teacher(name, entry['config'], entry['checkpoint'],
                                       student.data_preprocessor, device, entry.get('weight', 1.0))
                         for name, entry in _checked_entries(entries).items()]
        recorder = TapRecorder(student, [term.tap for term in self.terms])
        with undisturbed_random_state():
            self._dry_run(runner, student, recorder)
        self._train_connectors(runner, device)
        self._attach(student, recorder)

    def _dry_run(self, runner: Runner, student: nn.Module, recorder: TapRecorder) -> None:
        dataset = runner.train_dataloader.dataset
        batch = student.data_preprocessor(pseudo_collate([dataset[0]]), False)
        inputs = batch['inputs']
        training = student.training
        student.eval()
        own = recorder.dry_run(lambda: forward_for_taps(student, inputs))
        student.train(training)
        teacher_taps = [term.teacher_tap for term in self.terms]
        taps = {teacher.name: teacher.tap(teacher_taps, inputs) for teacher in self.teachers}
        classes = getattr(dataset, 'metainfo', {}).get('classes')
        for term in self.terms:
            term.prepare(own, self.teachers, taps, classes)

    def _train_connectors(self, runner: Runner, device: torch.device) -> None:
        """Hand the connectors' parameters to the student's optimizer."""
        if not any(term.connectors for term in self.terms):
            return
        if not isinstance(runner.optim_wrapper, OptimWrapper):
            raise UserError('connectors need a single optimizer, and this config has several: '
                            'use one optim_wrapper')
        # The schedulers hold one base value per group, so no group is added; of those there are,
        # the fastest is the one that no paramwise_cfg slows down.
        group = max(runner.optim_wrapper.optimizer.param_groups, key=lambda g: g['lr'])
        for term in self.terms:
            for name, module in term.connectors.items():
                module.to(device).train()
                group['params'].extend(module.parameters())
                if is_distributed():
                    term.connectors[name] = DistributedDataParallel(module)

    def _attach(self, student: nn.Module, recorder: TapRecorder) -> None:
        # Closures, since copy.deepcopy (an EMA of the model) does not follow them.
        def start(module: nn.Module, args: tuple, kwargs: dict) -> None:
            if module is student and _mode(args, kwargs) == 'loss':
                recorder.start()

        def finish(module: nn.Module, args: tuple, kwargs: dict, losses: Any) -> Any:
            if module is not student or _mode(args, kwargs) != 'loss':
                return losses
            inputs = args[0] if args else kwargs['inputs']
            samples = args[1] if len(args) > 1 else kwargs.get('data_samples')
            return losses | self._losses(recorder.take(), inputs, samples, losses)

        student.register_forward_pre_hook(start, with_kwargs=True)
        student.register_forward_hook(finish, with_kwargs=True)

    def _losses(self, student: Mapping[str, Any], inputs: Tensor, samples: Sequence | None,
                own: Mapping[str, Any]) -> dict[str, Tensor]:
        taps = {teacher.name: teacher(inputs, samples) for teacher in self.teachers}
        added = {f'loss_{term.name}': term.weight * term.compute(student, self.teachers, taps)
                 for term in self.terms}
        clashes = sorted(set(added) & set(own))
        if clashes:
            raise UserError(f"the student already has a loss '{clashes[0]}': give that "
                            'distillation hook another `name`')
        return added

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Save the connectors beside the student, never inside its ``state_dict``."""
        if any(term.connectors for term in self.terms):
            checkpoint[CHECKPOINT_KEY] = {
                term.name: {name: _unwrapped(module).state_dict()
                            for name, module in term.connectors.items()}
                for term in self.terms if term.connectors}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Restore the connectors of a resumed run.

        Raises:
            UserError: the run is resumed and the checkpoint's connectors are not those of
                the config.
        """
        saved = checkpoint.get(CHECKPOINT_KEY, {})
        own = {(term.name, name): _unwrapped(module)
               for term in self.terms for name, module in term.connectors.items()}
        theirs = {(term, name): state for term, states in saved.items()
                  for name, state in states.items()}
        if not runner._resume:
            return  # The weights start another run: its connectors start anew.
        if set(own) != set(theirs):
            raise UserError(f'cannot resume: the checkpoint has connectors for {sorted(theirs)}, '
                            f'the config for {sorted(own)}: resume with the terms and teachers it '
                            'was trained with')
        for key, module in own.items():
            module.load_state_dict(theirs[key])


def shares(teachers: Sequence[Teacher]) -> list[tuple[Teacher, float]]:
    """Each teacher with its weight over the sum of all weights."""
    total = sum(teacher.weight for teacher in teachers)
    return [(teacher, teacher.weight / total) for teacher in teachers]


def _checked_entries(entries: Any) -> Mapping[str, Mapping[str, Any]]:
    if not entries:
        raise UserError('TeacherHook has no teachers: put '
                        'teachers = dict(NAME=dict(config=..., checkpoint=...)) into the config')
    for name, entry in entries.items():
        if not {'config', 'checkpoint'} <= set(entry) <= {'config', 'checkpoint', 'weight'}:
            raise UserError(f"teacher '{name}' has the keys {sorted(entry)}: give `config`, "
                            '`checkpoint` and, if wanted, `weight`')
    return entries


def _active_terms(runner: Runner) -> list[DistillHook]:
    terms = [hook for hook in runner.hooks if isinstance(hook, DistillHook)]
    if not terms:
        raise UserError('TeacherHook has nothing to teach: add a distillation hook such as '
                        "dict(type='HeatmapDistillHook') to custom_hooks")
    for term in terms:
        term.resolve_weight(runner.cfg.get('distill_weights'))
    active = [term for term in terms if term.weight > 0]
    names = [term.name for term in active]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UserError(f"two distillation hooks are called '{repeated[0]}': give one of them "
                        'another `name`')
    return active


def _checked_weight(weight: Any, name: str) -> float:
    number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
    if not number or not math.isfinite(weight) or weight < 0:
        raise UserError(f"term '{name}' has weight {weight!r}: give a number of at least 0")
    return weight


def _mode(args: tuple, kwargs: dict) -> str:
    return args[2] if len(args) > 2 else kwargs.get('mode', 'tensor')


def _last_tensor(value: Any) -> Tensor:
    """Of nested outputs the last one: the finest level, the last stack."""
    while not isinstance(value, Tensor):
        value = list(value.values())[-1] if isinstance(value, dict) else value[-1]
    return value


def _unwrapped(module: nn.Module) -> nn.Module:
    return module.module if isinstance(module, DistributedDataParallel) else module
