"""What passes the teacher's activation, stage by stage."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmkd.distillation.losses._distributed import sum_over_processes
from mmkd.distillation.losses._errors import InputError
from mmkd.distillation.losses._features import at_smaller_size
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['OFDLoss']


class OFDLoss(nn.Module):
    r"""Partial L2 distance to the teacher's features behind a margin ReLU.

    ``L = sum_{l=1}^{n} 2^{l-n} d_p(sigma_m(F^t_l), r(F^s_l))`` over stages, finest first, with

    * the margin ReLU ``sigma_m(x) = max(x, m_c)``, ``m_c = E[F^t_c | F^t_c < 0] <= 0`` per channel,
    * ``d_p(T, S) = 1/B sum_{bcyx} ((T - S)^2, or 0 where S <= T <= 0)``,

    on features *before* the stages' last ReLU; ``r`` is the term's connector
    (:class:`~mmkd.distillation.connectors.OFDConnector`). Where a teacher answers with a
    negative value it does not matter how negative the student's is.

    The paper allows to compute ``m_c`` from the batch norm in front of the ReLU, as its code and
    mdistiller do by the closed form for a normal distribution, or to measure it. Here
    it is measured: the mean of all negative values that the training has met, over all
    processes, this batch included. It needs no batch norm, and is right behind a residual sum,
    where the feature is not that norm's output. A channel never seen negative has ``m_c = 0``.

    Source: B. Heo, J. Kim, S. Yun, H. Park, N. Kwak, J. Y. Choi, "A Comprehensive Overhaul of
    Feature Distillation", ICCV 2019, arXiv 1904.01866. The sum over channels and cells
    divided by the batch, and the factors ``2^{l-n}``, are those of its code, to which the weight
    of 1e-3 belongs. It assumes maps of one size; here the larger is average-pooled to the smaller,
    the teacher's before the margin ReLU, as in mdistiller.

    Args:
        teacher_channels: channels of the teacher's feature, stage by stage.
    """

    multi_level = True

    def __init__(self, teacher_channels: Sequence[int]) -> None:
        super().__init__()
        self.channels = list(teacher_channels)
        # float64: they count and sum for a whole training.
        zeros = torch.zeros(sum(self.channels), dtype=torch.float64)
        self.register_buffer('negative_sum', zeros)
        self.register_buffer('negative_count', zeros.clone())

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Compute the loss, in float32 at least; in training mode, update the margins first.

        Args:
            student: per stage ``(B, C_t, H, W)``, already with the teacher's channels.
            teacher: per stage ``(B, C_t, H', W')``; get no gradient.

        Returns:
            a scalar.

        Raises:
            InputError: a feature is not four-dimensional, or channels or the number of stages are
                not those of the teacher.
        """
        shapes = [tuple(feature.shape) for feature in (*student, *teacher)]
        if any(len(shape) != 4 for shape in shapes):
            raise InputError('OFDLoss compares maps (batch, channels, height, width), not features '
                             f'of shapes {shapes}: tap maps')
        ours, theirs = ([f.shape[1] for f in features] for features in (student, teacher))
        if ours != self.channels or theirs != self.channels:
            raise InputError(f'OFDLoss was built for {self.channels} channels and got '
                             f'{ours} from the student and {theirs} from the teacher: give the '
                             "term connector=dict(type='OFDConnector')")
        teacher = [at_least_float32(feature.detach()) for feature in teacher]
        if self.training:
            self._measure(teacher)
        stages = zip(student, teacher, self.margins(), strict=True)
        distances = [_partial_distance(at_least_float32(s), t, m.to(t.dtype))
                     for s, t, m in stages]
        return sum(distance / 2 ** (len(distances) - 1 - stage)
                   for stage, distance in enumerate(distances))

    def margins(self) -> list[Tensor]:
        """Return ``m_c`` of every stage, each ``(C_t,)`` float64."""
        return list((self.negative_sum / self.negative_count.clamp(min=1)).split(self.channels))

    @torch.no_grad()
    def _measure(self, teacher: Sequence[Tensor]) -> None:
        sums = [feature.clamp(max=0).sum((0, 2, 3), dtype=torch.float64) for feature in teacher]
        counts = [(feature < 0).sum((0, 2, 3), dtype=torch.float64) for feature in teacher]
        seen = sum_over_processes(torch.stack([torch.cat(sums), torch.cat(counts)]))
        self.negative_sum += seen[0]
        self.negative_count += seen[1]


def _partial_distance(student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:
    student, teacher = at_smaller_size(student, teacher)
    target = torch.maximum(teacher, margin.view(1, -1, 1, 1))
    matters = (student > target) | (target > 0)
    return ((student - target).square() * matters).sum() / len(student)
