"""Every member of a cohort as a plain checkpoint of its own."""

import io
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmkd.checkpoint_checks import WEIGHTS_HASH, weights_hash
from mmkd.distillation.distillation import MEAN_TEACHERS_KEY
from mmkd.errors import UserError
from mmkd.files import write_atomically
from mmkd.online.cohort import Cohort
from mmkd.registry import HOOKS

__all__ = ['MemberCheckpointHook']


@HOOKS.register_module()
class MemberCheckpointHook(Hook):
    """Writes ``NAME.pth`` into the work directory whenever a cohort's checkpoint is saved.

    It holds the ``state_dict`` of member ``NAME`` alone, under the names of a plain
    :class:`~mmkd.classification.Classifier`, and of the ``meta`` the epoch, the iteration and what
    the data set says of itself. What a method trains beside the members is not in it. If the run
    has a mean teacher of name ``TEACHER``, ``NAME.TEACHER.pth`` is the member's moving average
    likewise. Each file is written whole or not at all, by the main process.

    Raises:
        UserError: in ``before_run``, if the model is no cohort.
    """

    priority = 'VERY_LOW'

    def before_run(self, runner: Runner) -> None:
        """Refuse other models."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if not isinstance(model, Cohort):
            raise UserError(f'MemberCheckpointHook saves the members of a Cohort, and the model is '
                            f'a {type(model).__name__}: take the hook out of the config')
        self.names = list(model.members)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Write the members' files; mmengine calls this on the main process alone."""
        meta = {key: checkpoint['meta'][key] for key in ('epoch', 'iter', 'dataset_meta')
                if key in checkpoint['meta']}
        cohorts = {'.pth': ('members', checkpoint['state_dict'])} | {
            f'.{teacher}.pth': ('module.members', state)
            for teacher, state in checkpoint.get(MEAN_TEACHERS_KEY, {}).items()}
        for ending, (place, states) in cohorts.items():
            for name in self.names:
                start = f'{place}.{name}.'
                state = {key.removeprefix(start): value.cpu()
                         for key, value in states.items() if key.startswith(start)}
                file = io.BytesIO()
                torch.save(dict(meta=meta | {WEIGHTS_HASH: weights_hash(state)},
                                state_dict=state), file)
                write_atomically(Path(runner.work_dir, name + ending), file.getvalue())
