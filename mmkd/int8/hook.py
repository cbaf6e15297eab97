"""A student that learns to be an int8 model."""

from typing import Any

import torch
from mmdet.models import BaseDetector
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmkd.distillation.distillation_hook import DistillationHook
from mmkd.distillation.dry_run import bare, first_batch
from mmkd.distillation.taps import forward_for_taps
from mmkd.errors import UserError
from mmkd.int8.places import Places, find_places
from mmkd.int8.student import RANGES, Ranges, Rounded
from mmkd.mmengine_private import goes_on_from, trains
from mmkd.random_state import undisturbed_random_state
from mmkd.registry import HOOKS

__all__ = ['Int8AwareHook', 'places_of']

@HOOKS.register_module()
class Int8AwareHook(Hook):
    """Rounds a student's weights and features to int8 from some iteration on.

    From then on its batch norms stay as they are, validation is of the rounded student, and only
    such validations are compared for ``best.pth``. Its weights in checkpoints are float as ever;
    the ranges of its features lie in ``meta['int8_ranges']`` beside them.

    Args:
        begin: share of the iterations after which it begins, in ``[0, 1)``.

    Raises:
        UserError: in ``before_train``: the student has no layer that int8 has, or recomputes
            features to save memory.
    """

    priority = 'LOW'  # behind what builds teachers; before a missed validation

    def __init__(self, begin: float = 0.0) -> None:
        self.begin = begin
        self.rounded: Rounded | None = None
        """The student's, from ``before_train``."""
        self._saved: dict[str, Any] | None = None
        self._handles: list[Any] = []

    def _first(self, runner: Runner) -> int:
        return int(self.begin * runner.max_iters)

    def before_run(self, runner: Runner) -> None:
        """Let float epochs be no best ones."""
        if trains(runner):
            runner.message_hub.update_info('judged_from', self._first(runner))

    def before_train(self, runner: Runner) -> None:
        """Find out what is rounded; go on with it in a resumed run."""
        student = bare(runner.model)
        if any(getattr(module, 'with_cp', False) for module in student.modules()):
            raise UserError('int8_aware and with_cp=True of the model exclude one another, since '
                            'recomputed features would not be rounded: take one of them out')
        places = _places_in_run(runner, student)
        ranges = Ranges(places, next(student.parameters()).device)
        if self._saved is not None:
            ranges.load(self._saved)
        self.rounded = Rounded(student, places, ranges,
                               lambda: student.training and torch.is_grad_enabled())
        if runner.iter > self._first(runner):
            self._attach(runner, student)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Begin, when it is time; keep batch norms as they are."""
        student = bare(runner.model)
        if not self._handles and runner.iter >= self._first(runner):
            self._attach(runner, student)
            runner.logger.info(f'int8: from now on the student is rounded, in '
                               f'{len(self.rounded.places.calls)} layers')
        if self._handles:
            for module in student.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()

    def _attach(self, runner: Runner, student: nn.Module) -> None:
        for hook in runner.hooks:
            if isinstance(hook, DistillationHook) and hook.distillation is not None:
                hook.distillation.freeze_float_teachers()
        rounded, entered = self.rounded, []

        # Closures, as in DistillationHook: a copy of the model is a float one.
        def enter(module: nn.Module, args: tuple) -> None:
            if module is student:
                entered.append(rounded.__enter__())

        def leave(module: nn.Module, args: tuple, output: Any) -> None:
            if module is student and entered:
                entered.pop().__exit__(None, None, None)

        # Left before distillation runs teachers and losses.
        self._handles = [student.register_forward_pre_hook(enter),
                         student.register_forward_hook(leave, prepend=True, always_call=True)]

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: Any = None) -> None:
        """Give all processes the same ranges."""
        if self._handles:
            self.rounded.ranges.join()

    def after_run(self, runner: Runner) -> None:
        """Leave the student a float model."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Save the ranges beside the weights."""
        if self._handles:
            checkpoint['meta'][RANGES] = self.rounded.ranges.saved()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Go on with the ranges of a resumed run."""
        if goes_on_from(runner) is not None:
            self._saved = checkpoint['meta'].get(RANGES)


def _places_in_run(runner: Runner, student: nn.Module) -> Places:
    told = runner.message_hub.runtime_info
    progress = {name: told[name] for name in ('epoch', 'iter') if name in told}
    with undisturbed_random_state():
        places = places_of(student, *first_batch(runner.train_dataloader, student))
    told.update(progress)  # which looking at a batch sets to the beginning
    return places


def places_of(model: nn.Module, inputs: Any, samples: Any = None) -> Places:
    """Find what of a detector or classifier is computed in int8.

    Args:
        model: left as it is.
        inputs: of a batch, as the model takes them.
        samples: of that batch.

    Raises:
        UserError: it has no layer that int8 has.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        places = find_places(model, lambda: forward_for_taps(model, inputs, samples),
                             keep_last=isinstance(model, BaseDetector))
    finally:
        for module, training in modes.items():
            module.training = training
    if not places.calls:
        raise UserError(f'int8_aware: the {type(model).__name__} has no convolution and no linear '
                        'layer in front of its last ones: train it without')
    return places
