"""Rules by which several teachers teach together."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mmkd.detection.teacher_maps import Maps
from mmkd.errors import UserError, did_you_mean

__all__ = ['JOINING_RULES', 'checked_rule', 'joined']

JOINING_RULES = ('labels', 'certainty', 'each', 'mean', 'max', 'confidence')


def checked_rule(rule: str, term: str, allowed: Sequence[str] = JOINING_RULES) -> str:
    """Return ``rule`` if it is allowed for a term.

    Raises:
        UserError: it is not.
    """
    if rule not in allowed:
        raise UserError(f"term '{term}' has joint='{rule}': choose one of {list(allowed)}."
                        f'{did_you_mean(str(rule), allowed)}')
    return rule


def joined(maps: Sequence[Maps], shares: Sequence[float], rule: str) -> Maps:
    """Join the maps of ``K`` teachers.

    With ``a_k`` the shares and ``m_k = max_c Y_k`` the confidence of teacher ``k`` in a cell:

    * ``'mean'``: ``sum_k a_k X_k`` for each map ``X``;
    * ``'max'``: the heatmap is ``max_k Y_k`` per class; width-height and offset are those
      of the teacher that is most confident in the cell;
    * ``'confidence'``: ``sum_k a_k m_k X_k / sum_k a_k m_k`` for each map, cell by cell.

    Args:
        maps: one per teacher, all of the same shapes.
        shares: one per teacher, with sum 1.
        rule: one of the above; the others keep the teachers apart and never come here.
    """
    stacks = [torch.stack(kind) for kind in zip(*maps, strict=True)]
    confidence = stacks[0].amax(dim=2, keepdim=True)
    weight = confidence.new_tensor(shares).view(-1, 1, 1, 1, 1)
    if rule == 'max':
        best = confidence.argmax(dim=0, keepdim=True)

        def of_the_best(stack: Tensor) -> Tensor:
            return stack.gather(0, best.expand(1, *stack.shape[1:]))[0]

        return Maps(stacks[0].amax(0), of_the_best(stacks[1]), of_the_best(stacks[2]))
    if rule == 'confidence':
        weight = weight * confidence
        weight = weight / weight.sum(0, keepdim=True).clamp(min=1e-12)
    return Maps(*((weight * stack).sum(0) for stack in stacks))
