"""Feature imitation where the teacher sees objects."""

from torch import Tensor, nn

from mmkd.distillation.losses._errors import InputError
from mmkd.distillation.losses._features import check_same_shape
from mmkd.distillation.losses._image_weights import weighted
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['ScoreWeightedL2Loss']


class ScoreWeightedL2Loss(nn.Module):
    r"""Square error of two features, weighted by how sure the teacher is of an object there.

    ``L = sum_{bcyx} q_{byx} (P(s)_{bcyx} - t_{bcyx})^2 / (C sum_{byx} q_{byx} + 1e-9)``

    with ``q`` the teacher's highest class probability in a cell, of the level of the feature.
    The projection ``P`` is the term's connector, ``MLPConnector``. Both sums are over the whole
    batch of this process, so that an image with many sure cells has more say than one with few;
    weights of images are factors in the upper sum alone. 0 where all scores are 0.

    Source: knowledge distillation of Ultralytics YOLO, version 8.4, since June 2026 (its guide of
    that name and its code; there is no paper), with ``q = max_c sigmoid(z_c)`` of the mean ``z``
    of the logits of its one-to-one and one-to-many heads. There every level of the neck that
    enters the head is such a term, projected even where the channels agree. The sum over the levels
    has the weight ``dis``, 6 by default, and is multiplied, as all losses there, by the
    number of images.
    """

    def forward(self, student: Tensor, teacher: Tensor, scores: Tensor,
                image_weights: Tensor | None = None) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: ``(B, C, H, W)``, already projected.
            teacher: the same shape; gets no gradient.
            scores: ``q``, ``(B, 1, H, W)`` or ``(B, H, W)``, at least 0; get no gradient.
            image_weights: ``(B,)``, a factor for each image; None for 1.

        Returns:
            a scalar.

        Raises:
            InputError: the features' shapes differ or are not four-dimensional, or there is not
                one score for each cell.
        """
        check_same_shape(student, teacher, 'ScoreWeightedL2Loss', connector='MLPConnector')
        batch, channels, height, width = student.shape
        if scores.shape not in ((batch, 1, height, width), (batch, height, width)):
            raise InputError(f'ScoreWeightedL2Loss needs one score for each cell, shape '
                             f'{(batch, 1, height, width)} or {(batch, height, width)}, and got '
                             f"{tuple(scores.shape)}: give it the scores of the feature's level")
        difference = at_least_float32(student) - at_least_float32(teacher.detach())
        q = scores.detach().to(difference.dtype).view(batch, height, width)
        errors = q * difference.square().sum(1)
        return weighted(errors, image_weights).sum() / (channels * q.sum() + 1e-9)
