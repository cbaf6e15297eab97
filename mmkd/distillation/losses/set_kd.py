"""A teacher's predictions as soft truths, which the student's are matched to."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mmkd.distillation.losses._dense import Groups
from mmkd.distillation.losses._sets import (
    check_classes,
    class_costs,
    class_divergence,
    foreground,
    giou,
    paired_layers,
    predictions,
)

__all__ = ['SetKDLoss']

Assign = Callable[[Tensor], Tensor]
"""From costs ``(B, N, M)``, ``M <= N``, to the row of each column, ``(B, M)`` int64, no row twice,
of the smallest sum."""


class SetKDLoss(nn.Module):
    r"""Hungarian-matching logits distillation between the queries of two DETRs.

    Every query of the teacher, those on no object too, is a truth with soft classes ``t`` and a box
    ``b``. Layer by layer one query of the student is assigned to each, so that the sum of

    ``c_ij = a KL(t_j || s_i) + b |b_i - b_j|_1 - c GIoU(b_i, b_j)``

    is smallest, and with these pairs, ``M`` truths in each of ``B`` images,

    ``L = sum_l 1/(B M) sum_j a KL(t_j || s_j) + b |b_j^s - b_j^t|_1 + c (1 - GIoU(b_j^s, b_j^t))``.

    ``KL`` is that of the softmax of heads with a class for no object (DETR), or the sum of one for
    each class of heads with sigmoids; boxes are centre, width and height in fractions of the
    image. 0 where student and teacher are equal.

    Where the teacher has more queries than the student, its surest are the truths, as many as the
    student has queries; where it has fewer, the student's others learn nothing here. Of decoders of
    different depth the last layers meet, and the others at the same share of the way: layer
    ``l`` of ``S`` (from 1) meets ``ceil(l T / S)`` of ``T``.

    Source: J. Chang, S. Wang, H.-M. Xu, Z. Chen, C. Yang, F. Zhao, "DETRDistill: A Universal
    Knowledge Distillation Framework for DETR-families", ICCV 2023, arXiv 2211.10156; after its
    published code for Deformable DETR, with ``a = 1``, ``b = 5``, ``c = 2``. There, too, the
    teacher's queries on no object are truths like the others, which is how the code teaches their
    places. It has cross-entropies where ``KL`` stands here, with the same gradients and, of as many
    queries, the same assignment; it cuts the teacher's boxes off at the border of the image; it
    has sigmoids and equal numbers of queries and layers alone.

    Args:
        class_weight: ``a``.
        box_weight: ``b``.
        giou_weight: ``c``.
    """

    def __init__(self, class_weight: float = 1.0, box_weight: float = 5.0,
                 giou_weight: float = 2.0) -> None:
        super().__init__()
        self.class_weight, self.box_weight = class_weight, box_weight
        self.giou_weight = giou_weight

    def forward(self, student: Groups, teacher: Groups, has_background: bool, assign: Assign
                ) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: ``cls``, for each layer ``(B, N, C)`` logits, and ``box``, ``(B, N, 4)``.
            teacher: the same, of queries and layers of its own; gets no gradient.
            has_background: whether the last class of a softmax is no object; else sigmoids.
            assign: the assignment.

        Returns:
            a scalar.

        Raises:
            InputError: the classes do not fit each other.
        """
        classes, boxes = predictions(student, 'SetKDLoss', 'the student')
        soft, places = predictions(teacher, 'SetKDLoss', 'the teacher')
        check_classes(classes, soft, 'SetKDLoss')
        losses = [self._layer(cls, box, *_truths(soft[other].detach(), places[other].detach(),
                                                 cls.shape[1], has_background),
                              has_background, assign)
                  for cls, box, other in zip(classes, boxes,
                                             paired_layers(len(classes), len(soft)), strict=True)]
        return torch.stack(losses).sum()

    def _layer(self, classes: Tensor, boxes: Tensor, soft: Tensor, places: Tensor,
               has_background: bool, assign: Assign) -> Tensor:
        with torch.no_grad(), torch.autocast(classes.device.type, enabled=False):
            costs = self.class_weight * class_costs(classes, soft, has_background)
            costs += self.box_weight * torch.cdist(boxes, places, p=1)
            costs -= self.giou_weight * giou(boxes[:, :, None], places[:, None])
            rows = assign(costs)
        classes, boxes = (_picked(one, rows) for one in (classes, boxes))
        losses = (self.class_weight * class_divergence(classes, soft, has_background)
                  + self.box_weight * (boxes - places).abs().sum(-1)
                  + self.giou_weight * (1 - giou(boxes, places)))
        return losses.mean()


def _truths(classes: Tensor, boxes: Tensor, count: int, has_background: bool
            ) -> tuple[Tensor, Tensor]:
    """Return the teacher's surest queries, if it has more than ``count``."""
    if classes.shape[1] <= count:
        return classes, boxes
    surest = foreground(classes, has_background).amax(-1).topk(count, 1).indices
    return _picked(classes, surest), _picked(boxes, surest)


def _picked(values: Tensor, rows: Tensor) -> Tensor:
    """Pick queries out of ``(B, N, K)``."""
    return values.gather(1, rows[..., None].expand(-1, -1, values.shape[-1]))
