"""Contrast between the student's and the teacher's embeddings of a batch."""

import torch
from torch import Tensor, nn

from mmkd.distillation.losses._distributed import gather_rows, world_size
from mmkd.distillation.losses._errors import InputError, check_temperature
from mmkd.distillation.losses._features import unit
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['FSECDLoss']

POLICIES = ('instance', 'class')


class FSECDLoss(nn.Module):
    r"""Draw each student feature to the teacher features that are its positives.

    ``L = -1/B sum_i 1/|P(i)| sum_{p in P(i)}
    log [ exp(s_i . t_p / tau) / sum_j exp(s_i . t_j / tau) ]``

    with ``s_i``, ``t_j`` the features of the batch divided by their L2 norm, ``j`` over all ``B``
    teacher features and the positives

    * ``P(i) = {i}`` (``policy='instance'``), or
    * ``P(i) = {j : y_j = y_i}`` (``policy='class'``), which contains ``i``.

    The teacher's features are positives and negatives, and constants. When several processes
    train, they are gathered, and ``B`` is the batch of all processes together: each returns its
    own samples' share times the number of processes, so that the mean which
    DistributedDataParallel takes of the gradients is the gradient of the whole batch, even
    where the processes' batches differ in size.

    Source: Ye, Chen, Lai, feature-space embedding contrastive distillation, Journal of South
    China University of Technology 51(5), 2023, which describes the two policies and the ``N``
    pairs that a student feature forms with the batch's teacher features. This project's
    reading, since the source does not print it: the L2 normalisation, the temperature, and the
    mean over ``P(i)`` outside the logarithm, as in P. Khosla et al., "Supervised Contrastive
    Learning", NeurIPS 2020, arXiv 2004.11362.

    Args:
        policy: ``'instance'`` or ``'class'``.
        temperature: ``tau`` > 0.

    Raises:
        InputError: there is no such policy, or the temperature is not above 0.
    """

    def __init__(self, policy: str = 'instance', temperature: float = 0.1) -> None:
        super().__init__()
        if policy not in POLICIES:
            raise InputError(f"FSECDLoss has no policy {policy!r}: use 'instance' or 'class'")
        check_temperature(temperature, 'FSECDLoss')
        self.policy = policy
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor | None = None) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: ``(B, D)``, already in the teacher's feature space.
            teacher: the same shape; gets no gradient.
            labels: ``(B,)`` int64, the classes; only for ``policy='class'``.

        Returns:
            a scalar.

        Raises:
            InputError: the features are not of one shape ``(B, D)``, the labels not ``(B,)`` or
                absent though the policy needs them, or there is a single sample in all.
        """
        if student.dim() != 2 or student.shape != teacher.shape:
            raise InputError(f'FSECDLoss compares embeddings (batch, dimensions) of one shape, not '
                             f'{tuple(student.shape)} of the student with {tuple(teacher.shape)} '
                             'of the teacher: tap embeddings and give the term a LinearConnector')
        targets, first = gather_rows(at_least_float32(teacher))
        if len(targets) == 1:
            raise InputError('a batch of one sample is too small for FSECDLoss, which contrasts '
                             'samples: use a larger batch, and drop_last for the rest')
        positives = self._positives(len(student), len(targets), first, student.device, labels)
        with torch.autocast(device_type=student.device.type, enabled=False):
            similarity = unit(at_least_float32(student), dim=1) @ unit(targets, dim=1).t()
            log_p = torch.log_softmax(similarity / self.temperature, dim=1)
        each = -(log_p * positives).sum(1) / positives.sum(1)
        return each.sum() * world_size() / len(targets)

    def _positives(self, own: int, total: int, first: int, device: torch.device,
                   labels: Tensor | None) -> Tensor:
        """Return ``(own, total)`` bool: which teacher features are whose positives."""
        if self.policy == 'instance':
            everyone = torch.arange(total, device=device)
            return everyone[first:first + own].unsqueeze(1) == everyone
        if labels is None or labels.shape != (own,):
            found = 'none' if labels is None else f'labels of shape {tuple(labels.shape)}'
            raise InputError("FSECDLoss(policy='class') needs one label per sample, shape "
                             f'({own},), and got {found}: use data with labels and no mixing of '
                             "images, or policy='instance'")
        return labels.unsqueeze(1) == gather_rows(labels)[0]
