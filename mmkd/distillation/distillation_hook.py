"""How distillation enters a run.

The student stays a plain model; everything below hangs on it for the duration of a run::

    runner.train()
      before_run                DistillationHook builds teachers and terms, runs student (one
                                training pass) and teachers once on two images, and lets every
                                term build its connectors and losses
      load_or_resume            both are restored with the checkpoint
      every iteration
        student(mode='loss')    pre-hook: start recording the student's taps
          ...                   the student computes its own losses
        forward hook            run each teacher once on the same inputs, ask every term for its
                                loss, add them as `loss_distill_<term>`; mmengine sums and logs them
      before_save_checkpoint    both are saved under 'distillation', beside `state_dict`
      after_run                 the hooks come off the student

Under DDP the student is called inside the wrapper, so the same hooks fire there.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce_params, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import MessageHub, MMLogger
from mmengine.runner import BaseLoop, Runner
from torch import Tensor, nn

from mmkd.distillation.branch_optimizer import add_branches
from mmkd.distillation.cache.options import cache_options
from mmkd.distillation.cache.prepare import CachePlan
from mmkd.distillation.check import check_connectors, check_first_step, check_teachers
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
from mmkd.distillation.inherit import Inheritance, hand_down, inheritance
from mmkd.distillation.step import Step
from mmkd.distillation.student_teachers import MeanTeacher
from mmkd.distillation.taps import TapRecorder
from mmkd.distillation.teachers import Teacher, undisturbed_random_state
from mmkd.distillation.term import Term
from mmkd.engine.checkpoint_hook import write_atomically
from mmkd.engine.run_folder import CHECK
from mmkd.errors import UserError, did_you_mean
from mmkd.registry import HOOKS

__all__ = ['DistillationHook']

SCHEDULES = ('joint', 'progressive')
CHECKPOINT_KEY = 'distillation'
WEIGHTS_KEY = 'distillation_weights'
MEAN_TEACHERS_KEY = 'mean_teachers'


@HOOKS.register_module()
class DistillationHook(Hook):
    """Builds the teachers and adds every term's loss to the student's own.

    Args:
        teachers: for each name ``dict(config=..., checkpoint=..., weight=1.0)``, where
            ``model=dict(...)`` may stand in place of ``config`` and ``compile=True`` and
            ``precision='auto'`` may follow, see :func:`build_teacher`; or, of the student itself,
            ``dict(ema=0.999)``, see :class:`MeanTeacher`, or ``dict(partners=True)``, see
            :class:`PartnerTeacher`. None for the config's top-level ``teachers``. Not needed if
            every term is a :class:`SelfTerm`.
        terms: for each name the config of a :class:`Term`; None for the config's ``terms``. Their
            weights may stand in the config's ``distill_weights``.
        schedule: ``'joint'``, all teachers teach all the time, or ``'progressive'``, one after
            another, each for the same number of iterations, in the order of the config: name the
            weakest first. The source is S. Cao, M. Li, J. Hays, D. Ramanan, Y.-X. Wang, L.-Y.
            Gui, "Learning Lightweight Object Detectors via Multi-Teacher Progressive
            Distillation" (MTPD), ICML 2023, arXiv 2308.09105, which trains a whole schedule for
            each teacher.
        inherit: weights that the student begins with: for a teacher's name what is copied,
            ``dict(r50=['neck', 'bbox_head'])``, see
            :func:`~mmkd.distillation.inherit.inheritance`; None for the config's ``inherit``,
            if there is one. A resumed run goes on as it was.
        check_teachers: look at the teachers and the terms before the first epoch, for seconds:
            see :mod:`mmkd.distillation.check`.

    Raises:
        UserError: in ``before_run``: no teacher is named, an entry has other keys, what
            :func:`build_teacher` raises, a tap does not exist, or a term has no weight.
    """

    priority = 'HIGH'

    def __init__(self, teachers: Mapping[str, Mapping[str, Any]] | None = None,
                 terms: Mapping[str, Mapping[str, Any]] | None = None,
                 schedule: str = 'joint', inherit: Mapping[str, Any] | None = None,
                 check_teachers: bool = True) -> None:
        if schedule not in SCHEDULES:
            raise UserError(f'DistillationHook has schedule={schedule!r}: give one of '
                            f'{", ".join(SCHEDULES)}.{did_you_mean(str(schedule), SCHEDULES)}')
        self._entries = teachers
        self._terms = terms
        self._inherit = inherit
        self._inherited: Inheritance = {}
        self.schedule = schedule
        self.check_teachers = check_teachers
        self.teachers: list[Teacher] = []
        self.active: list[Teacher] = []
        """The teachers of this iteration."""
        self.terms: list[Term] = []
        self.balanced: dict[str, BalancedWeight] = {}
        """The weights that set themselves, by term."""
        self._iteration = 0
        self._first_step = True
        self._checked: dict[str, Any] = {}
        self._logs: MessageHub | None = None
        self._handles: list[Any] = []

    def _configure(self, runner: Runner) -> None:
        cfg = runner.cfg
        self.terms = built_terms(cfg.get('terms') if self._terms is None else self._terms,
                                 cfg.get('distill_weights'))
        if self._entries is None:
            self._entries = cfg.get('teachers')
        if self._inherit is None:
            self._inherit = cfg.get('inherit')

    def before_run(self, runner: Runner) -> None:
        """Set distillation up, unless the run does not train or every weight is 0."""
        if not isinstance(runner._train_loop, BaseLoop):
            return
        self._configure(runner)
        student = bare(runner.model)
        device = next(student.parameters()).device
        self._inherited = inheritance(self._inherit, self._entries, student)
        if not self.terms:
            runner.logger.warning('No distillation term has a weight above 0: the student trains '
                                  'alone')
            return
        if any(term.needs_teachers for term in self.terms):
            check_names(self.terms, checked_entries(self._entries))
            self.teachers = self._built_teachers(runner, student, device)
        self.active = self.teachers
        self.balanced = {term.name: BalancedWeight(term.gradient_share) for term in self.terms
                         if term.gradient_share is not None}
        self._logs = runner.message_hub
        for term in self.terms:
            term.meet(student, [one for one in self.teachers if term.learns_from(one.name)])
        recorder = TapRecorder(student, [tap for term in self.terms
                                         for tap in term.student_patterns()])
        with undisturbed_random_state():
            rehearse(runner.train_dataloader, student, recorder, self.teachers, self.terms)
        in_turn = (self.schedule == 'progressive'
                   or any(term.until is not None for term in self.terms))
        self._compute = add_branches(runner, self.terms, device, in_turn)
        self._attach(student, recorder)

    def _built_teachers(self, runner: Runner, student: nn.Module, device: torch.device
                        ) -> list[Teacher]:
        entries = checked_entries(self._entries)

        def build(name: str, entry: Mapping[str, Any]) -> Teacher:
            return build_entry(name, entry, student, device)

        options = cache_options(runner.cfg)
        if options is None:
            return [build(name, entry) for name, entry in entries.items()]
        plan = CachePlan(options, runner.cfg, self.terms, runner.train_dataloader, student, build)
        with undisturbed_random_state():
            return plan.teachers(entries, device)

    def build_cache(self, runner: Runner) -> None:
        """Build what is missing of the config's ``teacher_cache``, in place of a run.

        Raises:
            UserError: there is no ``teacher_cache`` or no term, and what building raises.
        """
        if runner.cfg.get('teacher_cache') is None:
            raise UserError(f"config '{runner.cfg.filename}' has no teacher_cache: add the line "
                            "teacher_cache = dict(folder='work_dirs/cache', views=8)")
        self._configure(runner)
        student = bare(runner.model)
        device = next(student.parameters()).device
        options = cache_options(runner.cfg)
        loader = runner.build_dataloader(runner.cfg.train_dataloader, seed=0)
        plan = CachePlan(options, runner.cfg, self.terms, loader, student,
                         lambda name, entry: build_entry(name, entry, student, device))
        with undisturbed_random_state():
            plan.teachers(checked_entries(self._entries), device)

    def _attach(self, student: nn.Module, recorder: TapRecorder) -> None:
        self._student = student
        # Closures, since copy.deepcopy (an EMA of the model) does not follow them.
        def start(module: nn.Module, args: tuple, kwargs: dict) -> None:
            if module is student and _given(args, kwargs).get('mode') == 'loss':
                recorder.start()

        def finish(module: nn.Module, args: tuple, kwargs: dict, losses: Any) -> Any:
            given = _given(args, kwargs)
            if module is not student or given.get('mode') != 'loss':
                return losses
            return losses | self._losses(recorder.take(), given['inputs'],
                                         given.get('data_samples'), losses)

        self._handles = [student.register_forward_pre_hook(start, with_kwargs=True),
                         student.register_forward_hook(finish, with_kwargs=True)]

    def after_run(self, runner: Runner) -> None:
        """Take the hooks off the student: it may be trained again, without or with others."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _losses(self, student: Mapping[str, Tensor], inputs: Tensor, samples: Any,
                own: Mapping[str, Any]) -> dict[str, Tensor]:
        shared: dict[Any, Tensor] = {}
        running = [term for term in self.terms if not term.ended]
        teachers = [teacher for teacher in self.active
                    if any(term.learns_from(teacher.name) for term in running)]
        taps = {teacher.name: teacher(inputs, samples, shared) for teacher in teachers}
        step = Step(student, teachers, taps, samples, self._student, inputs)
        # Several processes wait for the gradients of a module that they call.
        raw = (self._compute if running else bare(self._compute))(step)
        if self._first_step and torch.is_grad_enabled():
            self._first_step = False
            check_gradients_flow(self.terms, step)
            if self.check_teachers and self._iteration == 0:
                self._add_checked(check_first_step(
                    self.terms, step, own,
                    {term.name: (term.weight, raw[term.name]) for term in self.terms},
                    MMLogger.get_current_instance()))
        added = {f'loss_distill_{term.name}': self._weighted(term, raw[term.name], step, own)
                 for term in self.terms}
        clashes = sorted(set(added) & set(own))
        if clashes:
            raise UserError(f"the student already has a loss '{clashes[0]}': give that "
                            'distillation term another name')
        return added

    def _add_checked(self, found: Mapping[str, Any]) -> None:
        self._checked = {**self._checked, **found,
                         'warnings': self._checked.get('warnings', []) + found.get('warnings', [])}

    def _weighted(self, term: Term, loss: Tensor, step: Step, own: Mapping[str, Any]) -> Tensor:
        balanced = self.balanced.get(term.name)
        if balanced is None:
            return term.weight * loss
        if self._iteration % INTERVAL == 0 and torch.is_grad_enabled():
            tensors = tapped_tensors(term, step)
            balanced.update(gradient_norm(own_loss(own), tensors), gradient_norm(loss, tensors))
        weight = term.weight if balanced.value is None else balanced.value
        self._logs.update_scalar(f'train/weight_{term.name}', weight)
        return weight * loss

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Choose the teachers of this iteration, and let weights rise."""
        self._iteration = runner.iter
        # Counted in passes over the data: an IterBasedTrainLoop has no epochs.
        epoch = runner.iter // max(len(runner.train_dataloader), 1)
        for term in self.terms:
            ended = term.ended
            term.begin_epoch(epoch, runner.iter / runner.max_iters)
            if term.ended and not ended:
                runner.logger.info(f"Term '{term.name}' ends here, as until={term.until} says")
        if self.schedule == 'progressive' and self.teachers:
            stage = len(self.teachers) * runner.iter // runner.max_iters
            self.active = self.teachers[min(stage, len(self.teachers) - 1):][:1]

    def before_train(self, runner: Runner) -> None:
        """Hand weights down, let mean teachers begin where the student does, check the others."""
        if runner.iter == 0:
            hand_down(self._inherited, bare(runner.model))
        self._inherited = {}
        for teacher in self._mean_teachers():
            teacher.begin(bare(runner.model))
        if self.check_teachers and runner.iter == 0:
            check_connectors(self.terms, runner.optim_wrapper)
            if self.teachers:
                self._add_checked(check_teachers(
                    runner, checked_entries(self._entries), bare(runner.model),
                    self.schedule == 'progressive'))

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: Any = None) -> None:
        """Let mean teachers follow the student, at each step of the optimizer."""
        if self._checked and is_main_process():
            content = json.dumps(self._checked, indent=1, default=float).encode()
            try:
                write_atomically(Path(runner.work_dir, CHECK), content)
            except OSError as error:  # a report misses it, the run does not
                runner.logger.warning(f"cannot write '{CHECK}' ({error.strerror or error})")
        self._checked = {}
        if self._mean_teachers() and runner.optim_wrapper.should_update():
            for teacher in self._mean_teachers():
                teacher.update(bare(runner.model))

    def after_train_epoch(self, runner: Runner) -> None:
        """Give all processes the same mean teachers: their batch statistics differ."""
        for teacher in self._mean_teachers():
            all_reduce_params(teacher.model.buffers(), op='mean')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Save what the terms trained beside the student, never inside its ``state_dict``."""
        for teacher in self._mean_teachers():
            checkpoint.setdefault(MEAN_TEACHERS_KEY, {})[teacher.name] = (
                teacher.average.state_dict())
        if self.balanced:
            checkpoint[WEIGHTS_KEY] = {name: one.value for name, one in self.balanced.items()}
        for (term, teacher), branch in self._branches().items():
            terms = checkpoint.setdefault(CHECKPOINT_KEY, {})
            terms.setdefault(term, {})[teacher] = branch.state_dict()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Restore what the terms of a resumed run trained.

        Raises:
            UserError: the run is resumed and the checkpoint's terms are not those of the config.
        """
        if not runner._resume:
            return  # The weights start another run: its connectors start anew.
        own = self._branches()
        theirs = {(term, teacher): state
                  for term, states in checkpoint.get(CHECKPOINT_KEY, {}).items()
                  for teacher, state in states.items()}
        if set(own) != set(theirs):
            raise UserError(f'cannot resume: the checkpoint has connectors for {sorted(theirs)}, '
                            f'the config for {sorted(own)}: resume with the terms and teachers it '
                            'was trained with')
        for key, branch in own.items():
            branch.load_state_dict(theirs[key])
        for name, balanced in self.balanced.items():
            balanced.value = checkpoint.get(WEIGHTS_KEY, {}).get(name)
        for teacher in self._mean_teachers():
            state = checkpoint.get(MEAN_TEACHERS_KEY, {}).get(teacher.name)
            if state is None:
                raise UserError("cannot resume: the checkpoint has no mean teacher "
                                f"'{teacher.name}': resume with the teachers it was trained with")
            teacher.average.load_state_dict(state)

    def _mean_teachers(self) -> list[MeanTeacher]:
        return [teacher for teacher in self.teachers if isinstance(teacher, MeanTeacher)]

    def _branches(self) -> dict[tuple[str, str], nn.Module]:
        """By term and teacher, those that have something to save."""
        return {(term.name, source): branch for term in self.terms
                for source, branch in term.branches.items() if branch.state_dict()}


def _given(args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Name what a model was called with."""
    return dict(zip(('inputs', 'data_samples', 'mode'), args, strict=False)) | dict(kwargs)
