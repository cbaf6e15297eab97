"""Stop a run whose loss has become meaningless."""

from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import all_gather_object, all_reduce
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmkd.engine.checkpoint_hook import last_good
from mmkd.errors import UserError
from mmkd.registry import HOOKS

__all__ = ['StopOnInvalidLossHook']

# Far above what a loss of untrained networks is, sums over whole feature maps included.
DIVERGED = 1e10


@HOOKS.register_module()
class StopOnInvalidLossHook(Hook):
    """Stop at the first iteration whose loss is NaN, infinite or beyond 1e10 on any process.

    A loss beyond that has diverged: it may stay finite to the last epoch, and nothing is learnt. It
    comes before every hook that could save the weights, so the last checkpoint stays the last good
    one. Infinite *gradients*, normal under dynamic loss scaling, are no concern of it.

    Raises:
        UserError: names the iteration, the bad terms and the last good checkpoint; on every
            process of a distributed run alike, so that none waits for the others.
    """

    priority = 'VERY_HIGH'

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: dict[str, Any] | None = None) -> None:
        """Check the logged losses, ``outputs``: name to scalar."""
        # mmengine has logged these numbers by now, so the device is not waited for once more.
        losses = {name: torch.as_tensor(value).item() for name, value in (outputs or {}).items()
                  if 'loss' in name}
        bad = [f'{name} is {value:.4g}' for name, value in losses.items()
               if not abs(value) <= DIVERGED]  # true of NaN, too
        if runner.distributed:
            count = torch.tensor(len(bad), device=get_device())
            all_reduce(count)
            if count:
                bad = sorted({term for terms in all_gather_object(bad) for term in terms})
        if bad:
            raise UserError(
                f'the loss is not finite or has diverged at iteration {runner.iter + 1} '
                f'({", ".join(bad)}): lower the learning rate, clip the gradients or look at the '
                f'weight of the bad term; {last_good(runner)}')
