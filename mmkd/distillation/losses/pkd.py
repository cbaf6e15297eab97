"""Features alike in their pattern, whatever their scale."""

from torch import Size, Tensor, nn

from mmkd.distillation.losses._errors import InputError
from mmkd.distillation.losses._features import at_smaller_size
from mmkd.distillation.losses._image_weights import mean_of_images
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['PKDLoss']


class PKDLoss(nn.Module):
    r"""Half the mean square difference of two features whose channels were standardised.

    ``L = 1 / (2 B C H W) * sum_{bcyx} (N(F^s)_{bcyx} - N(F^t)_{bcyx})^2``,
    ``N(F)_{bcyx} = (F_{bcyx} - mu_c) / (sigma_c + 1e-6)``

    with the mean ``mu_c`` and the standard deviation ``sigma_c`` of channel ``c`` over ``(B, H,
    W)``. As both sides are standardised, ``L = 1 - r`` with the mean Pearson correlation ``r`` of
    their channels: only the pattern counts, so that one weight serves teachers whose features
    differ in scale. Maps of two sizes are average-pooled to the smaller before that. A channel that
    is constant gets no gradient.

    Source: W. Cao, Y. Zhang, J. Gao, A. Cheng, K. Cheng, J. Cheng, "PKD: General Distillation
    Framework for Object Detectors via Pearson Correlation Coefficient", NeurIPS 2022, arXiv
    2207.02039. ``sigma`` is the unbiased one, and the statistics are those of each process's own
    batch, as in mmrazor's code, which resamples the student bilinearly to the teacher's size
    where the heights differ. Weights there, for each of the first four levels: 10 between two
    RetinaNets, 6 where the teacher is a two-stage detector.
    """

    def forward(self, student: Tensor, teacher: Tensor,
                image_weights: Tensor | None = None) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: ``(B, C, H, W)``, with as many channels as the teacher's.
            teacher: ``(B, C, H', W')``; gets no gradient.
            image_weights: ``(B,)``, a factor for each image; None for 1.

        Returns:
            a scalar.

        Raises:
            InputError: a feature is not four-dimensional, or batches or channels differ.
        """
        student, teacher = at_smaller_size(at_least_float32(student),
                                           at_least_float32(teacher.detach()))
        if student.shape[1] != teacher.shape[1]:
            raise InputError(f'PKDLoss compares channel by channel, and the student has '
                             f'{student.shape[1]}, the teacher {teacher.shape[1]}: add '
                             "connector=dict(type='ConvConnector')")
        return mean_of_images(_mean_squares(student, teacher) / 2, image_weights)


def _mean_squares(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean square difference of the standardised features for each image, ``(B,)``.

    The square is multiplied out, ``sum (s / a - t / b)^2 = ss / a^2 - 2 st / (a b) + tt / b^2``, so
    that features are read for three sums and never divided: twice as fast on a CPU.
    """
    student, teacher = (one.flatten(2) - one.mean((0, 2, 3))[:, None] for one in (student, teacher))
    own, theirs = student.square().sum(2), teacher.square().sum(2)
    a, b = (_deviation(squares, student.shape) for squares in (own, theirs))
    found = own / a.square() - 2 * (student * teacher).sum(2) / (a * b) + theirs / b.square()
    return found.sum(1) / student[0].numel()


def _deviation(squares: Tensor, shape: Size) -> Tensor:
    """Return the unbiased deviation of each channel, plus 1e-6, from its squares ``(B, C)``."""
    variance = squares.sum(0) / max(shape[0] * shape[2] - 1, 1)
    # The square root has no finite slope at 0, hence the bound.
    return variance.clamp(min=1e-12).sqrt() + 1e-6
