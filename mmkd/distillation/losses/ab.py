"""Which side of zero a neuron is on, stage by stage."""

from collections.abc import Sequence

from torch import Tensor, nn

from mmkd.distillation.losses._errors import InputError
from mmkd.distillation.losses._features import at_smaller_size
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['ABLoss']


class ABLoss(nn.Module):
    r"""Activation boundaries: the student's neurons are to be active where the teacher's are.

    ``L = sum_{l=1}^{n} 2^{l-n} 1/B || rho(T_l) sigma(mu - r(S_l))
    + (1 - rho(T_l)) sigma(mu + r(S_l)) ||_2^2`` over stages, finest first, with

    * the teacher's activation ``rho(x) = 1`` where ``x > 0``, else 0,
    * ``sigma(x) = max(x, 0)``,

    on features *before* the stages' last ReLU; ``r`` is the term's connector
    (:class:`~mmkd.distillation.connectors.OFDConnector`, which is the authors' for this loss, too).
    The loss is 0 where the student is beyond the margin ``mu`` on the teacher's side of 0; how far
    the teacher is does not matter.

    Source: B. Heo, M. Lee, S. Yun, J. Y. Choi, "Knowledge Transfer via Distillation of Activation
    Boundaries Formed by Hidden Neurons", AAAI 2019, arXiv 1811.03233. The sum over channels and
    cells divided by the batch, the factors ``2^{l-n}`` and a weight of 0.003 are those of its code
    and RepDistiller's. Both first train student and connectors with this loss alone
    (RepDistiller: for 30 epochs), then the student without it; here these are the first epochs
    of a single training, beside the cross-entropy (the term's ``until``). Of maps that differ in
    size the larger is average-pooled to the smaller, the teacher's before ``rho``.

    Args:
        margin: ``mu`` > 0.

    Raises:
        InputError: the margin is not above 0.
    """

    multi_level = True

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        if not margin > 0:
            raise InputError(f'ABLoss needs a margin above 0, not {margin!r}')
        self.margin = margin

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: per stage ``(B, C_t, H, W)``, already with the teacher's channels.
            teacher: per stage ``(B, C_t, H', W')``; get no gradient.

        Returns:
            a scalar.

        Raises:
            InputError: a feature is not four-dimensional, or student and teacher differ in channels
                or batch.
        """
        ours, theirs = ([tuple(f.shape) for f in features] for features in (student, teacher))
        maps = all(len(shape) == 4 for shape in (*ours, *theirs))
        if not maps or [shape[:2] for shape in ours] != [shape[:2] for shape in theirs]:
            raise InputError('ABLoss compares maps (batch, channels, height, width) of equal '
                             f'channels, not features of shapes {ours} of the student and {theirs} '
                             "of the teacher: tap maps, and give the term connector=dict(type="
                             "'OFDConnector')")
        distances = [self._distance(at_least_float32(s), at_least_float32(t.detach()))
                     for s, t in zip(student, teacher, strict=True)]
        return sum(distance / 2 ** (len(distances) - 1 - stage)
                   for stage, distance in enumerate(distances))

    def _distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = at_smaller_size(student, teacher)
        side = (teacher > 0).to(student.dtype) * 2 - 1  # 1 where active, else -1
        return (self.margin - side * student).relu().square().sum() / len(student)
