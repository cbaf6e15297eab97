"""The moving averages of a cohort's members, evaluated beside the members."""

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from mmkd.distillation.distillation_hook import DistillationHook
from mmkd.distillation.dry_run import bare
from mmkd.distillation.student_teachers import MeanTeacher
from mmkd.registry import HOOKS

__all__ = ['MeanMembersHook']


@HOOKS.register_module()
class MeanMembersHook(Hook):
    """Lets the mean teachers of a run predict whenever its cohort does.

    A prediction then has ``mean_scores`` as well: for ``NAME.TEACHER``, the moving average of
    member ``NAME`` under the teacher's name in the config, the softmax ``(B, num_classes)``, of
    which :class:`~mmkd.online.metric.CohortAccuracy` takes the accuracies. A run without a mean
    teacher, as one whose terms have the weight 0, is left as it is.
    """

    def __init__(self) -> None:
        self._handle: Any = None

    def before_run(self, runner: Runner) -> None:
        """Find the mean teachers that the DistillationHook has built."""
        teachers = [teacher for hook in runner.hooks if isinstance(hook, DistillationHook)
                    for teacher in hook.teachers if isinstance(teacher, MeanTeacher)]
        if not teachers:
            return

        def predict(cohort: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
            given = dict(zip(('inputs', 'data_samples', 'mode'), args, strict=False)) | kwargs
            if given.get('mode') == 'predict':
                [sample] = output
                sample.mean_scores = mean_scores(teachers, given['inputs'])

        self._handle = bare(runner.model).register_forward_hook(predict, with_kwargs=True)

    def after_run(self, runner: Runner) -> None:
        """Take the hook off the cohort."""
        if self._handle is not None:
            self._handle.remove()


@torch.no_grad()
def mean_scores(teachers: list[MeanTeacher], inputs: Tensor) -> dict[str, Tensor]:
    """Return the softmax of each mean member, by ``NAME.TEACHER``."""
    return {f'{name}.{teacher.name}': logits.float().softmax(1)
            for teacher in teachers for name, logits in teacher.model(inputs).items()}
