"""Features alike in their pattern, whatever their scale."""

from torch import Tensor, nn

from mmkd.distillation.losses._errors import InputError
from mmkd.distillation.losses._features import at_smaller_size, channel_statistics
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
        squares = (_standardised(student) - _standardised(teacher)).square()
        return mean_of_images(squares.flatten(1).mean(1) / 2, image_weights)


def _standardised(feature: Tensor) -> Tensor:
    mean, deviation = channel_statistics(feature)
    return (feature - mean) / (deviation + 1e-6)
