"""Two DETRs are asked at the same queries."""

import torch
from torch import Tensor, nn

from mmkd.distillation.losses._dense import Groups
from mmkd.distillation.losses._errors import InputError, check_temperature
from mmkd.distillation.losses._sets import (
    check_classes,
    class_divergence,
    foreground,
    giou,
    predictions,
)

__all__ = ['KDDETRLoss']


class KDDETRLoss(nn.Module):
    r"""The losses of KD-DETR, at distillation points that both decoders have been asked at.

    A point is a query. For each set of ``N`` points, with the teacher's last layer ``t``, every
    layer ``l`` of the student, ``B`` images, ``C`` classes, and the teacher's foreground score
    ``w = max_c p^t_c`` (sigmoids, or a softmax without its class for no object) as weight:

    ``L = sum_sets sum_l a L_cls + b L_box + c L_giou``

    * ``L_cls = T^2 / (B C) sum_i w_i KL(softmax(z^t_i / T) || softmax(z^l_i / T))``;
    * ``L_box = 1 / sum_i w_i sum_i w_i |b^l_i - b^t_i|_1 / 4``;
    * ``L_giou = 1 / sum_i w_i sum_i w_i (1 - GIoU(b^l_i, b^t_i))``

    with boxes as centre, width and height in fractions of the image. 0 where both are equal.

    Source: Y. Wang, X. Li, S. Weng, G. Zhang, H. Yue, H. Feng, J. Han, E. Ding, "KD-DETR:
    Knowledge Distillation for Detection Transformer with Consistent Distillation Points Sampling",
    CVPR 2024, arXiv 2211.08071; after its published code for DAB-DETR, with ``T = 10``, ``b = 5``,
    ``c = 2``. There ``L_cls`` is the sum over the images of a process, 8 of them, with weight 1;
    here it is their mean, so that it does not depend on how a batch is spread over processes, and
    ``a = 8``.

    Args:
        class_weight: ``a``.
        box_weight: ``b``.
        giou_weight: ``c``.
        temperature: ``T``, > 0.

    Raises:
        InputError: ``temperature`` is not above 0.
    """

    def __init__(self, class_weight: float = 8.0, box_weight: float = 5.0,
                 giou_weight: float = 2.0, temperature: float = 10.0) -> None:
        super().__init__()
        check_temperature(temperature, 'KDDETRLoss')
        self.class_weight, self.box_weight = class_weight, box_weight
        self.giou_weight, self.temperature = giou_weight, temperature

    def forward(self, student: Groups, teacher: Groups, has_background: bool) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: ``cls``, for each set of points ``(L, B, N, C)`` logits of all layers, and
                ``box``, ``(L, B, N, 4)``.
            teacher: the same, of as many layers as it has; gets no gradient.
            has_background: whether the last class of a softmax is no object; else sigmoids.

        Returns:
            a scalar.

        Raises:
            InputError: points or classes are not as many on both sides.
        """
        ours = predictions(student, 'KDDETRLoss', 'the student')
        theirs = predictions(teacher, 'KDDETRLoss', 'the teacher')
        check_classes(ours[0], theirs[0], 'KDDETRLoss')
        if [one.shape[1:3] for one in ours[0]] != [one.shape[1:3] for one in theirs[0]]:
            raise InputError('KDDETRLoss compares point by point, and the student has '
                             f'{[tuple(one.shape) for one in ours[0]]}, the teacher '
                             f'{[tuple(one.shape) for one in theirs[0]]}')
        return torch.stack([
            self._set(cls, box, soft[-1].detach(), place[-1].detach(), has_background)
            for cls, box, soft, place in zip(*ours, *theirs, strict=True)]).sum()

    def _set(self, classes: Tensor, boxes: Tensor, soft: Tensor, places: Tensor,
             has_background: bool) -> Tensor:
        weights = foreground(soft, has_background).amax(-1)
        divergences = class_divergence(classes / self.temperature, soft / self.temperature, True)
        cls = self.temperature ** 2 / soft.shape[-1] * (weights * divergences).sum((1, 2)
                                                                                   ) / len(soft)
        distances = (self.box_weight * (boxes - places).abs().mean(-1)
                     + self.giou_weight * (1 - giou(boxes, places)))
        box = (weights * distances).sum((1, 2)) / weights.sum().clamp(min=1e-9)
        return (self.class_weight * cls + box).sum()
