"""Everyone imitates one ensemble, formed with the labels in sight."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmkd.distillation.losses._cohort import check_labels, checked_logits, imitation
from mmkd.distillation.losses._errors import InputError, check_temperature

__all__ = ['KDCLLoss']


class KDCLLoss(nn.Module):
    r"""Collaborative learning: all members imitate the ensemble ``z_t`` of their logits.

    ``L = sum_i T^2 KL(p_t || p_i)``, ``p_i = softmax(z_i / T)``, ``p_t = softmax(z_t / T)`` a
    constant, summed over classes, averaged over the batch. Of one image with label ``y`` the
    ensemble has the logits

    * ``'naive'``: ``z_t = z_k``, ``k = argmin_i CE(z_i, y)``, of the member that knows best;
    * ``'linear'``: ``z_t = sum_i a_i z_i``, ``a = argmin CE(sum_i a_i z_i, y)`` over ``a_i >= 0``,
      ``sum_i a_i = 1``, a convex problem, solved by an interior-point method;
    * ``'minlogit'``: ``z_{t,c} = min_i (z_{i,c} - z_{i,y})`` for each class ``c``;
    * ``'general'``: ``z_t = sum_i w_i z_i`` with the weights that minimise the squared error on
      this batch (the paper: on a validation set), ``sum_ij w_i w_j C_ij``, ``sum_i w_i = 1``:
      ``w_i = sum_j C^{-1}_ij / sum_kj C^{-1}_kj``, with
      ``C_ij = mean_b (p_i - e_y) . (p_j - e_y)``, where ``T = 1`` and ``e_y`` is the one-hot label.

    Source: Q. Guo et al., "Online Knowledge Distillation via Collaborative Learning", CVPR 2020,
    pp. 11020-11029, where every member also sees a distortion of the image of its own. This
    project's reading, since no code of the authors is known: Naive and Linear choose for each
    image; General estimates ``C`` anew on each training batch, where the paper does it on a
    validation set once an epoch, so that its weights follow the batch and see training images; it
    adds 1e-6 to the diagonal, which makes equal members share; and the temperature.

    Args:
        ensemble: one of the four names.
        temperature: ``T`` > 0.

    Raises:
        InputError: there is no such ensemble, or the temperature is not above 0.
    """

    multi_level = True

    def __init__(self, ensemble: str = 'minlogit', temperature: float = 2.0) -> None:
        super().__init__()
        check_temperature(temperature, 'KDCLLoss')
        if ensemble not in ENSEMBLES:
            raise InputError(f'KDCLLoss has no ensemble {ensemble!r}: use '
                             f'{", ".join(map(repr, ENSEMBLES))}')
        self.ensemble = ENSEMBLES[ensemble]
        self.temperature = temperature

    def forward(self, student: Sequence[Tensor], labels: Tensor) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: every member's logits, each ``(B, C)``.
            labels: ``(B,)`` int64, the classes.

        Returns:
            a scalar.

        Raises:
            InputError: there are fewer than two members, or the shapes do not fit.
        """
        logits = checked_logits(student, 'KDCLLoss')
        check_labels(labels, logits[0], 'KDCLLoss')
        with torch.no_grad(), torch.autocast(labels.device.type, enabled=False):
            target = self.ensemble(torch.stack(logits), labels)
        return torch.stack([imitation(z, [target], self.temperature) for z in logits]).sum()


def _naive(logits: Tensor, labels: Tensor) -> Tensor:
    each = torch.stack([F.cross_entropy(z, labels, reduction='none') for z in logits])
    return logits[each.argmin(0), torch.arange(len(labels), device=labels.device)]


def _over_the_label(logits: Tensor, labels: Tensor) -> Tensor:
    """Subtract the label's logit: ``(M, B, C)`` of the same shape."""
    return logits - logits.gather(2, labels.expand(len(logits), -1).unsqueeze(2))


def _min_logit(logits: Tensor, labels: Tensor) -> Tensor:
    return _over_the_label(logits, labels).amin(0)


def _linear(logits: Tensor, labels: Tensor) -> Tensor:
    # CE(sum_i a_i z_i, y) = logsumexp(sum_i a_i over_i), of shapes (B, M) and (B, M, C).
    # A barrier, -b sum_i log a_i, keeps all weights above 0, and one Newton step follows the
    # minimum each time that b falls to 0.3 of itself: 1.6e-7 in the last one.
    over = _over_the_label(logits, labels).transpose(0, 1).double()
    weights = over.new_full(over.shape[:2], 1 / len(logits))
    for number in range(LINEAR_STEPS):
        weights = _newton_step(weights, over, barrier=0.3 ** number)
    return torch.einsum('bm,mbc->bc', weights.to(logits.dtype), logits)


def _newton_step(weights: Tensor, over: Tensor, barrier: float) -> Tensor:
    """Lower ``logsumexp(sum_i a_i over_i) - barrier * sum_i log a_i`` with ``sum_i a_i = 1``."""
    p = torch.einsum('bm,bmc->bc', weights, over).softmax(1).unsqueeze(1)
    mean = (p * over).sum(2, keepdim=True)
    hessian = (over - mean) * p @ (over - mean).mT + torch.diag_embed(barrier / weights.square())
    gradient = mean - barrier / weights.unsqueeze(2)
    right = torch.cat([gradient, torch.ones_like(gradient)], dim=2)
    x, y = _solved(hessian, right).unbind(2)
    step = y * (x.sum(1, keepdim=True) / y.sum(1, keepdim=True)) - x
    reach = torch.where(step < 0, -weights / step, torch.inf).amin(1, keepdim=True)
    step = step * (0.99 * reach).clamp(max=1)  # All weights stay above 0.
    lengths = 0.5 ** torch.arange(13, dtype=step.dtype, device=step.device)
    tried = weights + lengths.view(-1, 1, 1) * step
    value = torch.einsum('sbm,bmc->sbc', tried, over).logsumexp(2) - barrier * tried.log().sum(2)
    return tried[value.argmin(0), torch.arange(len(weights), device=step.device)]


def _solved(matrix: Tensor, right: Tensor) -> Tensor:
    # Of positive definite systems: nothing to check, and no need to wait for the device.
    return torch.linalg.solve_ex(matrix, right)[0]


def _general(logits: Tensor, labels: Tensor) -> Tensor:
    errors = logits.softmax(2) - F.one_hot(labels, logits.shape[2])
    errors = errors.flatten(1).double()
    covariance = errors @ errors.t() / len(labels)
    covariance.diagonal().add_(1e-6)
    weights = _solved(covariance, torch.ones_like(covariance[:, :1]))
    weights = (weights / weights.sum()).to(logits.dtype)
    return (weights.unsqueeze(2) * logits).sum(0)


LINEAR_STEPS = 14
ENSEMBLES: dict[str, Callable[[Tensor, Tensor], Tensor]] = dict(
    naive=_naive, linear=_linear, minlogit=_min_logit, general=_general)
