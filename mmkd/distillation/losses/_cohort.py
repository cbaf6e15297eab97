"""What the losses of networks that teach each other share."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mmkd.distillation.losses._errors import InputError
from mmkd.distillation.losses._logits import kl_divergence
from mmkd.distillation.losses._precision import at_least_float32


def checked_logits(logits: Sequence[Tensor], loss: str) -> list[Tensor]:
    """Return the members' logits in float32 at least.

    Args:
        logits: one ``(B, C)`` per member.
        loss: name of the loss that asks.

    Raises:
        InputError: there are fewer than two members, or they differ in shape.
    """
    if len(logits) < 2:
        raise InputError(f'{loss} needs the logits of at least two members, not of {len(logits)}: '
                         'train a cohort of two networks or more')
    shapes = [tuple(z.shape) for z in logits]
    if logits[0].dim() != 2 or len(set(shapes)) > 1:
        raise InputError(f'{loss} compares logits (batch, classes) of one shape, not '
                         f'{", ".join(map(str, shapes))}: tap `head.fc` of every member')
    return [at_least_float32(z) for z in logits]


def check_labels(labels: Tensor, logits: Tensor, loss: str) -> None:
    """Check that there is a label for each of the logits ``(B, C)``.

    Raises:
        InputError: there is not.
    """
    if labels.shape != logits.shape[:1]:
        raise InputError(f'{loss} needs one label per sample, shape {tuple(logits.shape[:1])}, and '
                         f'got labels of shape {tuple(labels.shape)}')


def imitation(student: Tensor, targets: Sequence[Tensor], temperature: float) -> Tensor:
    """Return ``T^2`` times the mean over the targets of ``KL(softmax(t / T) || softmax(z / T))``.

    Args:
        student: logits ``z``, ``(B, C)``; the divergence is averaged over the batch.
        targets: logits ``t``, at least one; those that must get no gradient come detached.
        temperature: ``T``.
    """
    terms = [kl_divergence(student / temperature, target / temperature) for target in targets]
    return temperature ** 2 * torch.stack(terms).mean()


def others(values: Sequence[Tensor], own: int) -> list[Tensor]:
    """Return all but value number ``own``, without gradient."""
    return [value.detach() for number, value in enumerate(values) if number != own]
