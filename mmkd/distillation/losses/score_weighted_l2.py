"""Feature imitation where the teacher sees objects."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmkd.distillation.losses._errors import InputError
from mmkd.distillation.losses._features import check_same_shape
from mmkd.distillation.losses._image_weights import weighted
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['ScoreWeightedL2Loss']


class ScoreWeightedL2Loss(nn.Module):
    r"""Square error of two features, weighted by how sure the teacher is of an object there.

    ``L = sum_l sum_{bcyx} q_{byx} (P(s)_{bcyx} - t_{bcyx})^2 / (C sum_{byx} q_{byx} + 1e-9)``

    of the levels ``l``, with ``q`` the teacher's highest class probability in a cell of the level.
    The projection ``P`` is the term's connector, ``MLPConnector``. Sums over ``b`` are over the
    whole batch of this process, so that an image with many sure cells has more say than one with
    few; weights of images are factors in the upper sum alone. A level whose scores are all 0 adds
    0.

    Source: knowledge distillation of Ultralytics YOLO, version 8.4, since June 2026 (its guide of
    that name and its code; there is no paper), with ``q = max_c sigmoid(z_c)`` of the mean ``z``
    of the logits of its one-to-one and one-to-many heads. There every level of the neck that
    enters the head is such a term, projected even where the channels agree. The sum over the levels
    has the weight ``dis``, 6 by default, and is multiplied, as all losses there, by the
    number of images.
    """

    multi_level = True

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor],
                teacher_scores: Sequence[Tensor],
                image_weights: Tensor | None = None) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: ``(B, C, H, W)`` of each level, already projected.
            teacher: as many of the same shapes; get no gradient.
            teacher_scores: ``q`` of each level, ``(B, H, W)``, at least 0; get no gradient.
            image_weights: ``(B,)``, a factor for each image; None for 1.

        Returns:
            a scalar.

        Raises:
            InputError: the features' shapes differ or are not four-dimensional, or there is not
                one score for each cell.
        """
        return torch.stack([_of_level(*level, image_weights) for level in
                            zip(student, teacher, teacher_scores, strict=True)]).sum()


def _of_level(student: Tensor, teacher: Tensor, scores: Tensor, image_weights: Tensor | None
              ) -> Tensor:
    check_same_shape(student, teacher, 'ScoreWeightedL2Loss', connector='MLPConnector')
    batch, channels, height, width = student.shape
    if scores.shape != (batch, height, width):
        raise InputError(f'ScoreWeightedL2Loss needs one score for each cell, shape '
                         f'{(batch, height, width)}, and got {tuple(scores.shape)}: give the term '
                         "type='ScoreTerm' and size='teacher'")
    difference = at_least_float32(student) - at_least_float32(teacher.detach())
    q = scores.detach().to(difference.dtype)
    errors = q * difference.square().sum(1)
    return weighted(errors, image_weights).sum() / (channels * q.sum() + 1e-9)
