"""How distillation enters a run.

The student stays a plain model; everything below hangs on it for the duration of a run::

    runner.train()
      before_run                DistillationHook builds teachers and terms, runs student (one
                                training pass) and teachers once on two images, and lets every
                                term build its connectors and losses
      load_or_resume            both are restored with the checkpoint; from the checkpoint of
                                another run (`load_from`) what fits
      every iteration
        student(mode='loss')    pre-hook: start recording the student's taps
          ...                   the student computes its own losses
        forward hook            run each teacher once on the same inputs, ask every term for its
                                loss, add them as `loss_distill_<term>`; mmengine sums and logs them
                                (images without labels have their pass here, see `unlabelled.py`)
      before_save_checkpoint    both are saved under 'distillation', beside `state_dict`
      after_run                 the hooks come off the student

Under DDP the student is called inside the wrapper, so the same hooks fire there.
"""

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.dist import all_reduce_params
from mmengine.hooks import Hook
from mmengine.logging import MessageHub, MMLogger
from mmengine.runner import Runner
from torch import Tensor, nn

from mmkd.distillation.branch_optimizer import join_optimizer
from mmkd.distillation.cache_plan import CachePlan
from mmkd.distillation.check import check_connectors, check_first_step, check_teachers
from mmkd.distillation.distillation import Distillation, checked_schedule
from mmkd.distillation.dry_run import bare, first_batch
from mmkd.distillation.entries import build_entry, built_terms, check_names, checked_entries
from mmkd.distillation.inherit import Inheritance, hand_down, inheritance
from mmkd.distillation.teachers import Teacher, undisturbed_random_state
from mmkd.distillation.term import Term
from mmkd.distillation.unlabelled import (
    Unlabelled,
    check_without_labels,
    run_without_losses,
    without_labels,
)
from mmkd.errors import UserError
from mmkd.mmengine_private import goes_on_from, trains
from mmkd.registry import HOOKS
from mmkd.teacher_cache.options import cache_options

__all__ = ['DistillationHook']


@HOOKS.register_module()
class DistillationHook(Hook):
    """Builds the teachers and adds every term's loss to the student's own.

    Args:
        teachers: for each name ``dict(config=..., checkpoint=..., weight=1.0)``, where
            ``model=dict(...)``, or ``model='timm:NAME'`` or ``'hf:FOLDER'``
            (:mod:`mmkd.distillation.foundation`), may stand in place of ``config`` and
            ``compile=True`` and ``precision='auto'`` may follow, see :func:`build_teacher`; or, of
            the student itself, ``dict(ema=0.999)``, see :class:`MeanTeacher`,
            ``dict(partners=True)``, see :class:`PartnerTeacher`, or ``dict(float_self=True)``, see
            :class:`FloatTeacher`. None for the config's top-level ``teachers``. Not needed if every
            term is a :class:`SelfTerm`.
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
        unlabelled: ``ratio``, ``weight`` and ``only`` of the config's ``unlabelled``, and the
            ``dataset``; :func:`mmkd.engine.unlabelled.use_unlabelled` fills it in.

    Raises:
        UserError: in ``before_run``: no teacher is named, an entry has other keys, what
            :func:`build_teacher` raises, a tap does not exist, or a term has no weight.
    """

    priority = 'HIGH'

    def __init__(self, teachers: Mapping[str, Mapping[str, Any]] | None = None,
                 terms: Mapping[str, Mapping[str, Any]] | None = None,
                 schedule: str = 'joint', inherit: Mapping[str, Any] | None = None,
                 check_teachers: bool = True,
                 unlabelled: Mapping[str, Any] | None = None) -> None:
        self.schedule = checked_schedule(schedule)
        self._entries = teachers
        self._terms = terms
        self._inherit = inherit
        self._inherited: Inheritance = {}
        self.check_teachers = check_teachers
        self.terms: list[Term] = []
        self.distillation: Distillation | None = None
        """From ``before_run``; None if no term has a weight."""
        self.checked: dict[str, Any] = {}
        """What was found before the first epoch: of the teachers, of the terms, and warnings."""
        self._checks_step = False
        self._unlabelled = None if unlabelled is None else Unlabelled(**unlabelled)
        self._only = self._unlabelled is not None and self._unlabelled.only
        self._learns = False
        self._logs: MessageHub | None = None
        self._handles: list[Any] = []

    @property
    def teachers(self) -> list[Teacher]:
        """All teachers of the run; none before it is set up."""
        return [] if self.distillation is None else self.distillation.teachers

    def _configure(self, runner: Runner) -> None:
        cfg = runner.cfg
        self.terms = built_terms(cfg.get('terms') if self._terms is None else self._terms,
                                 cfg.get('distill_weights'))
        if self._entries is None:
            self._entries = cfg.get('teachers')
        if self._inherit is None:
            self._inherit = cfg.get('inherit')
        if cfg.get('unlabelled') is not None and self._unlabelled is None:
            raise UserError('unlabelled needs its images prepared: start the run by mmkd train, or '
                            'call mmkd.engine.unlabelled.use_unlabelled(cfg) before the runner is '
                            'built')
        if self._unlabelled is not None:
            check_without_labels(self.terms, self._only)

    def before_run(self, runner: Runner) -> None:
        """Set distillation up, unless the run does not train or every weight is 0."""
        if not trains(runner):
            return
        self.distillation = None
        self._configure(runner)
        student = bare(runner.model)
        device = next(student.parameters()).device
        self._inherited = inheritance(self._inherit, self._entries, student)
        if not self.terms and self._only:
            raise UserError('no distillation term has a weight above 0, and with unlabelled.only '
                            'the student learns from nothing else: give one a weight')
        if not self.terms:
            runner.logger.warning('No distillation term has a weight above 0: the student trains '
                                  'alone')
            return
        teachers: list[Teacher] = []
        if any(term.needs_teachers for term in self.terms):
            check_names(self.terms, checked_entries(self._entries))
            teachers = self._built_teachers(runner, student, device)
        self.distillation = Distillation(
            student, {teacher.name: teacher for teacher in teachers},
            {term.name: term for term in self.terms}, schedule=self.schedule)
        with undisturbed_random_state():
            self._prepare(runner, student, self.distillation)
        in_turn = (self.schedule == 'progressive'
                   or any(term.until is not None for term in self.terms))
        self.distillation.module = join_optimizer(runner, self.distillation.module, in_turn)
        self._logs = runner.message_hub
        self._attach(student, self.distillation)

    def _prepare(self, runner: Runner, student: nn.Module, distillation: Distillation) -> None:
        loader = runner.train_dataloader
        inputs, samples = first_batch(loader, student)
        if self._only:
            distillation.prepare(
                inputs, without_labels(samples),
                lambda: run_without_losses(student, inputs, samples), loader.dataset, False)
        else:
            distillation.prepare(inputs, samples, lambda: student(inputs, samples, mode='loss'),
                                 loader.dataset)
        if self._unlabelled is not None:
            self._unlabelled.prepare(loader, runner.seed, distillation)

    def _built_teachers(self, runner: Runner, student: nn.Module, device: torch.device
                        ) -> list[Teacher]:
        entries = checked_entries(self._entries)

        def build(name: str, entry: Mapping[str, Any]) -> Teacher:
            return build_entry(name, entry, student, device)

        options = cache_options(runner.cfg)
        if options is None:
            return [build(name, entry) for name, entry in entries.items()]
        plan = CachePlan(options, runner.cfg, self.terms, runner.train_dataloader, student, build,
                         other_images=self._unlabelled is not None and not self._only)
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

    def _attach(self, student: nn.Module, distillation: Distillation) -> None:
        # Closures, since copy.deepcopy (an EMA of the model) does not follow them.
        def start(module: nn.Module, args: tuple, kwargs: dict) -> Any:
            given = _given(args, kwargs)
            if module is not student:
                return None
            self._learns = given.get('mode') == 'loss'
            if self._learns:
                distillation.start()
            return ((), given | dict(mode='tensor')) if self._learns and self._only else None

        def finish(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> Any:
            if module is not student or not self._learns:
                return output
            self._learns = False
            given = _given(args, kwargs)
            if self._only:
                return self._losses(given['inputs'], without_labels(given['data_samples']), {})
            return output | self._losses(given['inputs'], given.get('data_samples'), output)

        self._handles = [student.register_forward_pre_hook(start, with_kwargs=True),
                         student.register_forward_hook(finish, with_kwargs=True)]

    def after_run(self, runner: Runner) -> None:
        """Take the hooks off the student: it may be trained again, without or with others."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if self._unlabelled is not None:
            self._unlabelled.stop()

    def _losses(self, inputs: Tensor, samples: Any, own: Mapping[str, Any]) -> dict[str, Tensor]:
        distillation = self.distillation
        steps = [distillation.step(inputs, samples, not self._only)]
        if self._unlabelled is not None:
            steps += self._unlabelled.steps(distillation)
        step, (raw, *others) = steps[0], distillation.compute(*steps)
        if self._checks_step and torch.is_grad_enabled():
            self._checks_step = False
            self._add_checked(check_first_step(
                self.terms, step, own,
                {term.name: (term.weight, raw[term.name]) for term in self.terms},
                MMLogger.get_current_instance()))
        losses = distillation.weighted(raw, step, own)
        for name in distillation.balanced:
            self._logs.update_scalar(f'train/weight_{name}', distillation.weight_of(name))
        added = {f'loss_distill_{name}': loss for name, loss in losses.items()}
        more = {f'loss_distill_{name}_unlabelled': self._unlabelled.weight * loss
                for raw in others for name, loss in distillation.weighted(raw, steps[1]).items()}
        clashes = sorted({*added, *more} & {*own} | {*added} & {*more})
        if clashes:
            raise UserError(f"the student already has a loss '{clashes[0]}': give that "
                            'distillation term another name')
        return added | more

    def _add_checked(self, found: Mapping[str, Any]) -> None:
        self.checked = {**self.checked, **found,
                        'warnings': self.checked.get('warnings', []) + found.get('warnings', [])}

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Choose the teachers of this iteration, and let weights rise."""
        if self.distillation is not None:
            # Epochs are passes over the data: an IterBasedTrainLoop has none.
            self.distillation.advance(runner.iter, runner.max_iters,
                                      runner.iter // max(len(runner.train_dataloader), 1))
            if self._unlabelled is not None:
                self._unlabelled.fetch(data_batch, self.distillation.ended)

    def before_train(self, runner: Runner) -> None:
        """Hand weights down, let mean teachers begin where the student does, check the others."""
        student = bare(runner.model)
        if runner.iter == 0:
            hand_down(self._inherited, student)
        self._inherited = {}
        if self.distillation is None:
            return
        if self._unlabelled is not None:
            self._unlabelled.start(runner.iter)
        for teacher in self.distillation.mean_teachers:
            teacher.begin(student)
        if self.check_teachers and runner.iter == 0:
            self._checks_step = True
            check_connectors(self.terms, runner.optim_wrapper)
            if self.teachers:
                self._add_checked(check_teachers(runner, checked_entries(self._entries), student,
                                                 self.schedule == 'progressive'))

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: Any = None) -> None:
        """Let mean teachers follow the student, at each step of the optimizer."""
        if self.distillation is not None and runner.optim_wrapper.should_update():
            self.distillation.after_step()

    def after_train_epoch(self, runner: Runner) -> None:
        """Give all processes the same mean teachers: their batch statistics differ."""
        if self.distillation is not None:
            for teacher in self.distillation.mean_teachers:
                all_reduce_params(teacher.model.buffers(), op='mean')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Save what the terms trained beside the student, never inside its ``state_dict``."""
        if self.distillation is not None:
            checkpoint.update(self.distillation.state_dict())

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Restore what the terms of a resumed run trained, and of another run what fits this one.

        A student that learns from the same teacher again, as one that is trained for int8 at the
        end, would else be pulled to where a connector of random weights wants it.

        Raises:
            UserError: the run is resumed and the checkpoint's terms are not those of the config.
        """
        if self.distillation is None:
            return
        if goes_on_from(runner) is not None:
            self.distillation.load_state_dict(checkpoint)
        elif kept := self.distillation.load_matching(checkpoint):
            runner.logger.info('Terms whose connectors and averages begin as the loaded checkpoint '
                               f'has them: {", ".join(kept)}')


def _given(args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Name what a model was called with."""
    return dict(zip(('inputs', 'data_samples', 'mode'), args, strict=False)) | dict(kwargs)
