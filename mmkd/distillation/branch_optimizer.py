"""Connectors and losses with parameters join the student's optimizer without touching its steps."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from mmengine.dist import is_distributed
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mmkd.distillation.step import Step
from mmkd.distillation.term import Term
from mmkd.errors import UserError
from mmkd.mmengine_private import insert_last_value, schedulers_of

__all__ = ['Terms', 'join_optimizer', 'trainable']


class Terms(nn.Module):
    """All branches of all terms as one module; called with steps, it returns their losses.

    DistributedDataParallel wants one call for each backward pass, whatever the number of batches.

    Args:
        terms: of the run, prepared.
    """

    def __init__(self, terms: Sequence[Term]) -> None:
        super().__init__()
        self.terms = list(terms)
        self.branches = nn.ModuleList(branch for term in terms for branch in term.branches.values())

    def forward(self, *steps: Step) -> list[dict[str, Tensor]]:
        """Return for each step the unweighted loss of each term."""
        return [{term.name: term.compute(step) for term in self.terms} for step in steps]


def join_optimizer(runner: Runner, module: nn.Module, in_turn: bool) -> nn.Module:
    """Train the branches of terms with the run's optimizer, in a parameter group of their own.

    The group has the optimizer's own settings: no ``paramwise_cfg`` of the student applies. Its
    learning rate is scaled and scheduled as the student's. Its gradients are clipped apart:
    a connector that starts with large ones must not shorten the student's steps.

    Args:
        runner: with its optimizer and schedulers built, and nothing resumed yet.
        module: :class:`Terms` of the run, on the student's device.
        in_turn: whether some branches are left out of some steps.

    Returns:
        the module, wrapped for several processes if it trains anything.

    Raises:
        UserError: there are parameters to train and several optimizers.
    """
    parameters = trainable(module)
    if not parameters:
        return module
    if not isinstance(runner.optim_wrapper, OptimWrapper):
        raise UserError('connectors need a single optimizer, and this config has several: '
                        'use one optim_wrapper')
    _add_group(runner, parameters)
    if runner.optim_wrapper.clip_grad_kwargs:
        runner.optim_wrapper.clip_func = _clipped_apart(runner.optim_wrapper.clip_func, parameters)
    if not is_distributed():
        return module
    # Losses keep their own buffers equal, which is cheaper than sending them around.
    return DistributedDataParallel(module, broadcast_buffers=False, find_unused_parameters=in_turn)


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that want a gradient."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def _add_group(runner: Runner, parameters: Sequence[nn.Parameter]) -> None:
    optimizer = runner.optim_wrapper.optimizer
    # The run scales learning rates to its batch size when the optimizer is built.
    scaled = OptimWrapper(torch.optim.SGD(parameters, lr=optimizer.defaults['lr']))
    runner.scale_lr(scaled, runner.auto_scale_lr)
    optimizer.add_param_group(dict(params=list(parameters), lr=scaled.param_groups[0]['lr']))
    first, own = optimizer.param_groups[0], optimizer.param_groups[-1]
    for scheduler in schedulers_of(runner):
        name = scheduler.param_name
        initial = f'initial_{name}'
        if initial not in own:
            own.setdefault(name, own['betas'][0] if 'betas' in own else None)
            own[initial] = own[name]
            # The schedulers have already set what the first step uses.
            own[name] = own[initial] * (first[name] / first[initial] if first[initial] else 1.0)
        # Not always the last: with a paramwise_cfg, the wrapper adds a group for the log.
        groups = scheduler.optimizer.param_groups
        place = next(i for i, group in enumerate(groups) if group is own)
        scheduler.base_values.insert(place, own[initial])
        insert_last_value(scheduler, place, own[name])


def _clipped_apart(clip: Callable[..., Any], apart: Sequence[nn.Parameter]) -> Callable[..., Any]:
    """Clip some parameters by themselves; return what clipping the others returns."""
    known = {id(parameter) for parameter in apart}

    def clip_both(parameters: Iterable[nn.Parameter], **options: Any) -> Tensor | None:
        parameters = list(parameters)
        clip([p for p in parameters if id(p) in known], **options)
        return clip([p for p in parameters if id(p) not in known], **options)

    return clip_both
