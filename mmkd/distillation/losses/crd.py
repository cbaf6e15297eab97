"""Contrast with a memory of the whole training set."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmkd.distillation.losses._distributed import gather_rows, sum_over_processes, world_size
from mmkd.distillation.losses._errors import InputError, check_temperature
from mmkd.distillation.losses._features import unit
from mmkd.distillation.losses._memory import SamplesByClass, initial_bank, updated_rows
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['CRDLoss']


class CRDLoss(nn.Module):
    r"""Tell a sample's embedding in the other network from those of other classes.

    ``L = L(s -> t) + L(t -> s)``, and with the anchor ``a_i`` and the other network's memory ``m``

    ``L(s -> t) = -1/B sum_i [ log h(a_i, m_i) + sum_{k=1}^{N} log(1 - h(a_i, m_{n_ik})) ]``,
    ``h(a, m) = e / (e + N / M)``, ``e = exp(a . m / tau) / Z``

    where ``a_i`` is a linear embedding of the feature divided by its L2 norm (both networks'
    embeddings are trained), ``M`` the number of training samples, and ``n_ik`` are drawn
    uniformly from the samples of other classes. ``Z``, one per direction, is ``M`` times the
    mean of ``exp(a . m / tau)`` over positives and negatives of the first batch, then constant.
    After each batch ``m_i <- unit(momentum m_i + (1 - momentum) a_i)``, without gradient.

    Processes gather embeddings and indices, so that all hold the same memory and the same
    ``Z``; each returns its samples' share of the loss over the whole batch times the number of
    processes, for DistributedDataParallel to average. Both memories are in the ``state_dict``.

    Source: Y. Tian, D. Krishnan, P. Isola, "Contrastive Representation Distillation", ICLR 2020,
    arXiv 1910.10699. ``Z``, memory, negatives and the sum of both directions are those of its
    code (RepDistiller), whose weight is 0.8. That draws a sample's negatives without replacement,
    this with, on the training device; and it adds 1e-7 to the denominator of ``h``.

    Args:
        student_channels: the student embedding's dimensions ``D_s``.
        teacher_channels: the teacher embedding's dimensions ``D_t``.
        sample_labels: ``(M,)`` int64, the class of every training sample.
        dim: dimensions of the common space.
        num_negatives: ``N``.
        temperature: ``tau``.
        momentum: of the memory.

    Raises:
        InputError: the labels are not ``(M,)``, or all equal, so that nothing is a negative; or
            the temperature is not above 0.
    """

    def __init__(self, student_channels: int, teacher_channels: int, sample_labels: Tensor,
                 dim: int = 128, num_negatives: int = 16384, temperature: float = 0.07,
                 momentum: float = 0.5) -> None:
        super().__init__()
        check_temperature(temperature, 'CRDLoss')
        self.student_embedding = nn.Linear(student_channels, dim)
        self.teacher_embedding = nn.Linear(teacher_channels, dim)
        self.num_negatives, self.temperature = num_negatives, temperature
        self.momentum = momentum
        self.samples = SamplesByClass(sample_labels, 'CRDLoss')
        self.size = len(self.samples.sorted)
        student_memory, teacher_memory = initial_bank(2, self.size, dim)
        self.register_buffer('student_memory', student_memory.clone())
        self.register_buffer('teacher_memory', teacher_memory.clone())
        self.register_buffer('partition', torch.zeros(2))  # Z of both directions; 0: not yet known

    def forward(self, student: Tensor, teacher: Tensor, indices: Tensor) -> Tensor:
        """Compute the loss, in float32 at least, and update the memory.

        Args:
            student: ``(B, D_s)``.
            teacher: ``(B, D_t)``; gets no gradient.
            indices: ``(B,)`` int64, the samples' numbers in the training set.

        Returns:
            a scalar.

        Raises:
            InputError: the features are not two-dimensional, or features and indices are not
                of one batch.
        """
        if not student.dim() == teacher.dim() == 2 or not (
                (len(student),) == (len(teacher),) == indices.shape):
            raise InputError('CRDLoss takes embeddings (batch, dimensions) and one index per '
                             f'sample, not {tuple(student.shape)} of the student, '
                             f'{tuple(teacher.shape)} of the teacher and indices of shape '
                             f'{tuple(indices.shape)}: tap embeddings')
        with torch.autocast(device_type=student.device.type, enabled=False):
            student = unit(self.student_embedding(at_least_float32(student)), dim=1)
            teacher = unit(self.teacher_embedding(at_least_float32(teacher.detach())), dim=1)
            pairs = torch.cat([indices.unsqueeze(1), self._negatives(indices)], dim=1)
            # All products and then a choice: far less memory than a copy of every chosen row.
            logits = torch.stack([(student @ self.teacher_memory.t()).gather(1, pairs),
                                  (teacher @ self.student_memory.t()).gather(1, pairs)])
        logits = logits / self.temperature
        if not self.partition.all():
            self._estimate_partition(logits)
        everyone, _ = gather_rows(indices)
        loss = self._noise_contrastive(logits) * world_size() / len(everyone)
        self.student_memory = self._updated(self.student_memory, student, everyone)
        self.teacher_memory = self._updated(self.teacher_memory, teacher, everyone)
        return loss

    def _negatives(self, indices: Tensor) -> Tensor:
        """Draw ``(B, N)`` samples of other classes."""
        return self.samples.of_others(indices, self.num_negatives)

    @torch.no_grad()
    def _estimate_partition(self, logits: Tensor) -> None:
        sums = logits.exp().sum((1, 2))
        count = sums.new_tensor([logits[0].numel()])
        *sums, count = sum_over_processes(torch.cat([sums, count]))
        self.partition = torch.stack(sums) / count * self.size

    def _noise_contrastive(self, logits: Tensor) -> Tensor:
        """Sum ``-log h`` over positives (first) and ``-log(1 - h)`` over negatives."""
        noise = self.num_negatives / self.size
        # h = sigmoid(log e - log(N / M)), and log(1 - sigmoid(x)) = -softplus(x).
        logits = logits - (self.partition * noise).log().view(2, 1, 1)
        return F.softplus(-logits[..., 0]).sum() + F.softplus(logits[..., 1:]).sum()

    def _updated(self, memory: Tensor, embeddings: Tensor, everyone: Tensor) -> Tensor:
        # A new tensor: the backward pass still needs the old one.
        rows = updated_rows(memory, embeddings, everyone, self.momentum)
        return memory.index_copy(0, everyone, rows)
