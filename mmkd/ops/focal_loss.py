"""Focal losses in plain PyTorch: stand in for mmcv's compiled ones.

MMDetection computes the focal loss in PyTorch on a CPU, and by the extension on a GPU.

Source: T.-Y. Lin, P. Goyal, R. Girshick, K. He, P. Dollár, "Focal Loss for Dense Object
Detection", ICCV 2017, arXiv 1708.02002.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkd.ops._gradients import backward_into, forward_into

__all__ = ['sigmoid_focal_loss_backward', 'sigmoid_focal_loss_forward',
           'softmax_focal_loss_backward', 'softmax_focal_loss_forward']


def sigmoid_focal_loss_forward(input: Tensor, target: Tensor, weight: Tensor, output: Tensor,
                               gamma: float, alpha: float) -> None:
    """Fill ``output`` with the loss of each class, none of them being the background.

    ``-alpha (1 - p)^gamma log p`` for the class of the target, and for the others
    ``-(1 - alpha) p^gamma log(1 - p)``, where ``p = sigmoid(input)``.

    Args:
        input: ``(N, C)`` logits.
        target: ``(N,)`` int64; a number that is no class is background.
        weight: ``(C,)``, what the losses of a target are multiplied by, or empty. The background
            has weight 1.
        output: ``(N, C)``.
        gamma: how much less an example counts that is told well.
        alpha: how much the class of the target counts.
    """
    forward_into(output, partial(_sigmoid_loss, target, weight, gamma, alpha), input)


def sigmoid_focal_loss_backward(input: Tensor, target: Tensor, weight: Tensor,
                                grad_input: Tensor, gamma: float, alpha: float) -> None:
    """Fill ``grad_input``, ``(N, C)``, with the derivative of each loss by its own logit."""
    loss = partial(_sigmoid_loss, target, weight, gamma, alpha)
    backward_into([grad_input], loss, [input], torch.ones_like(input))


def softmax_focal_loss_forward(input: Tensor, target: Tensor, weight: Tensor, output: Tensor,
                               gamma: float, alpha: float) -> None:
    """Fill ``output`` with ``-alpha (1 - p)^gamma log p`` of the target's class.

    Args:
        input: ``(N, C)`` probabilities ``p``, as a softmax gives them.
        target: ``(N,)`` int64; a number that is no class has no loss.
        weight: ``(C,)`` or empty, as of the sigmoid loss.
        output: ``(N,)``.
        gamma: how much less an example counts that is told well.
        alpha: a factor.
    """
    logits = _logits(input)
    forward_into(output, partial(_softmax_loss, target, weight, gamma, alpha), logits)


def softmax_focal_loss_backward(input: Tensor, target: Tensor, weight: Tensor, buff: Tensor,
                                grad_input: Tensor, gamma: float, alpha: float) -> None:
    """Fill ``grad_input``, ``(N, C)``, with the derivative of each row's loss by its logits.

    Args:
        input: probabilities, as of the forward operator.
        target: as of the forward operator.
        weight: as of the forward operator.
        buff: memory that the compiled operator needs, and this one does not.
        grad_input: ``(N, C)``.
        gamma: as of the forward operator.
        alpha: as of the forward operator.
    """
    loss = partial(_softmax_loss, target, weight, gamma, alpha)
    backward_into([grad_input], loss, [_logits(input)], torch.ones_like(input[:, 0]))


def _sigmoid_loss(target: Tensor, weight: Tensor, gamma: float, alpha: float,
                  logits: Tensor) -> Tensor:
    log_p, log_not_p = F.logsigmoid(logits), F.logsigmoid(-logits)
    # Powers of logarithms, whose gradient is finite where p is 0 or 1.
    right = -alpha * (gamma * log_not_p).exp() * log_p
    wrong = -(1 - alpha) * (gamma * log_p).exp() * log_not_p
    is_target = target[:, None] == torch.arange(logits.shape[1], device=target.device)
    return torch.where(is_target, right, wrong) * _weights(target, weight, logits)[:, None]


def _softmax_loss(target: Tensor, weight: Tensor, gamma: float, alpha: float,
                  logits: Tensor) -> Tensor:
    is_class = (target >= 0) & (target < logits.shape[1])
    log_p = logits.log_softmax(1).gather(1, target.where(is_class, 0)[:, None])[:, 0]
    loss = -alpha * (1 - log_p.exp()).clamp(min=0) ** gamma * log_p
    return loss * is_class * _weights(target, weight, logits)


def _logits(probabilities: Tensor) -> Tensor:
    """Return logits whose softmax is ``probabilities``; a loss of 1e-38 is as large as it gets."""
    return probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()


def _weights(target: Tensor, weight: Tensor, like: Tensor) -> Tensor:
    """Return as ``(N,)`` the weight of each target: 1 where it is no class, or none are given."""
    if not len(weight):
        return like.new_ones(len(target))
    is_class = (target >= 0) & (target < len(weight))
    return weight[target.where(is_class, 0)].where(is_class, 1)
