"""The gradients that reach the student's taps, and weights that follow from them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.dist import all_reduce
from torch import Tensor

from mmkd.distillation.step import Step
from mmkd.distillation.term import Term
from mmkd.errors import UserError

__all__ = ['BalancedWeight', 'check_gradients_flow', 'gradient_norm', 'own_loss', 'tapped_tensors']

INTERVAL = 10
"""Iterations from one measurement to the next: two more backward passes that end at the tap."""
MOMENTUM = 0.9
SCALE = 1024.0
"""Gradients at taps in float16 would round to 0 without."""


class BalancedWeight:
    r"""A weight that gives a term a share ``r`` of the gradient at the student's taps.

    ``w = r / (1 - r) * |dL_own / dF| / |dL_term / dF|``

    with the L2 norms over all tapped values ``F`` of the term, so that ``w |dL_term|`` is ``r`` of
    the sum of both norms. Measured every 10 iterations, and smoothed by an exponential mean with
    momentum 0.9. Processes agree: the squared norms are averaged over them.

    Source: after the gradient-guided adaptive modulation of Z. Liao, Y. Zhao, X. Shan, Y. Yan, C.
    Liu, L. Lu, X. Ji, J. Chen, "RT-DETRv4", 2025, arXiv 2510.25257, which sets one weight from
    the share of its feature loss in the gradient norms of whole modules, once an epoch; here it is
    at the taps, for each term by itself.

    Args:
        share: ``r``, between 0 and 1.
    """

    def __init__(self, share: float) -> None:
        self.share = share
        self.value: float | None = None

    def update(self, own: float, term: float) -> None:
        """Take in the norms of two gradients."""
        if own <= 0 or term <= 0:
            return
        now = self.share / (1 - self.share) * own / term
        self.value = now if self.value is None else MOMENTUM * self.value + (1 - MOMENTUM) * now


def own_loss(losses: Mapping[str, Any]) -> Tensor:
    """Return the sum of what the student minimises by itself: the values named ``loss``."""
    found = [torch.zeros(())] if not losses else []  # no labels, no losses of its own
    for name, value in losses.items():
        if 'loss' in name:
            found += [part.mean() for part in (value if isinstance(value, list) else [value])]
    return torch.stack(found).sum()


def tapped_tensors(term: Term, step: Step) -> list[Tensor]:
    """Return the student's leaves that a term teaches."""
    return [leaf for name in term.taps if (leaf := step.student[name]).is_floating_point()]


def gradient_norm(loss: Tensor, tensors: Sequence[Tensor]) -> float:
    """Return the L2 norm of the gradient of a loss at some tensors, over all processes' batches.

    The graph is kept, and no parameter's ``.grad`` changes.
    """
    wanted = [tensor for tensor in tensors if tensor.requires_grad]
    if not wanted or not loss.requires_grad:
        return 0.0
    gradients = torch.autograd.grad(SCALE * loss, wanted, retain_graph=True, allow_unused=True)
    total = torch.stack([torch.zeros((), device=loss.device)]
                        + [g.float().square().sum() for g in gradients if g is not None]).sum()
    all_reduce(total, op='mean')
    return total.sqrt().item() / SCALE


def check_gradients_flow(terms: Sequence[Term], step: Step) -> None:
    """Check that every tapped value of the student can be taught.

    Raises:
        UserError: a tap has none that wants a gradient.
    """
    for term in terms:
        for tap in term.taps:
            if not step.student[tap].requires_grad:
                raise UserError(
                    f"term '{term.name}' would teach nothing: the student's tap '{tap}' gets no "
                    'gradient. It lies in a frozen stage (backbone.frozen_stages), or in a '
                    'checkpointed block (with_cp) that runs without gradients: tap a later layer, '
                    'or take that setting out')
