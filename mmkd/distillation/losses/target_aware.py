"""Features of a DETR where the teacher's queries look for objects."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmkd.distillation.losses._dense import Groups, aligned_iou
from mmkd.distillation.losses._errors import InputError
from mmkd.distillation.losses._precision import at_least_float32
from mmkd.distillation.losses._sets import corners, foreground, predictions

__all__ = ['TargetAwareLoss']


class TargetAwareLoss(nn.Module):
    r"""Target-aware feature distillation.

    For each layer of the teacher's decoder, level of the features and image: the ``n`` surest
    predictions of the layer, each a query ``q_i`` with its score ``p_i`` for one class, have the
    quality ``w_i = p_i max_g IoU(b_i, g)`` with the true boxes ``g`` (``w_i = p_i`` where there
    are none). With the teacher's and the student's feature ``F^t``, ``F^s`` and cells ``x``:

    ``M_x = max(sum_i w_i cos(q_i, F^t_x), m)``, divided by its maximum over the cells,

    ``L = sum_layers sum_levels mean (M F^t - M F^s)^2``

    with the mean over images, channels and cells. 0 where both features are equal.

    Source: J. Chang, S. Wang, H.-M. Xu, Z. Chen, C. Yang, F. Zhao, "DETRDistill: A Universal
    Knowledge Distillation Framework for DETR-families", ICCV 2023, arXiv 2211.10156; after its
    published code, with ``n = 100`` and ``m = 0.01``.

    Args:
        count: ``n``; all predictions where a layer has fewer.
        floor: ``m``, > 0.

    Raises:
        InputError: ``floor`` is not above 0: the mask could not be divided by its maximum.
    """

    def __init__(self, count: int = 100, floor: float = 0.01) -> None:
        super().__init__()
        if floor <= 0:
            raise InputError(f'TargetAwareLoss has floor={floor}: give a number above 0')
        self.count, self.floor = count, floor

    def forward(self, student: Groups, teacher: Groups, boxes: Sequence[Tensor],
                img_shapes: Sequence[tuple[int, int]], has_background: bool) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: ``feature``, for each level ``(B, D, H, W)``.
            teacher: ``feature``, likewise; ``query``, for each layer of its decoder ``(B, M, D)``;
                ``cls``, ``(B, M, C)`` logits; ``box``, ``(B, M, 4)``. Gets no gradient.
            boxes: the true boxes of each image, ``(n, 4)`` in pixels.
            img_shapes: height and width of each image.
            has_background: whether the last class of a softmax is no object; else sigmoids.

        Returns:
            a scalar.

        Raises:
            InputError: the features differ in shape.
        """
        ours, theirs = ([at_least_float32(one) for one in side['feature']]
                        for side in (student, teacher))
        if [one.shape for one in ours] != [one.shape for one in theirs]:
            raise InputError('TargetAwareLoss compares features cell by cell, and the student has '
                             f'{[tuple(one.shape) for one in ours]}, the teacher '
                             f'{[tuple(one.shape) for one in theirs]}: take detectors whose necks '
                             'give the same levels and channels')
        with torch.no_grad():
            targets = self._targets(teacher, boxes, img_shapes, has_background)
        losses = []
        for own, other in zip(ours, theirs, strict=True):
            squares = (own - other.detach()).square().mean(1)
            cells = F.normalize(other.detach(), dim=1)
            losses += [(self._mask(cells, target).square() * squares).mean() for target in targets]
        return torch.stack(losses).sum()

    def _targets(self, teacher: Groups, boxes: Sequence[Tensor],
                 img_shapes: Sequence[tuple[int, int]], has_background: bool) -> list[Tensor]:
        """Return for each layer ``sum_i w_i q_i / |q_i|``, ``(B, D)``."""
        classes, places = predictions(teacher, 'TargetAwareLoss', 'the teacher')
        found = []
        for query, cls, box in zip(teacher['query'], classes, places, strict=True):
            scores = foreground(cls, has_background)
            surest, where = scores.flatten(1).topk(min(self.count, scores[0].numel()), 1)
            rows = where // scores.shape[-1]
            overlaps = torch.stack([_best_overlaps(*image) for image in
                                    zip(corners(box), boxes, img_shapes, strict=True)])
            weights = surest * overlaps.gather(1, rows)
            directions = F.normalize(at_least_float32(query), dim=-1)
            picked = directions.gather(1, rows[..., None].expand(-1, -1, query.shape[-1]))
            found.append((weights[..., None] * picked).sum(1))
        return found

    def _mask(self, cells: Tensor, target: Tensor) -> Tensor:
        """Return ``(B, H, W)``; the cosines of all queries are summed before they are taken."""
        mask = (cells * target.to(cells)[..., None, None]).sum(1).clamp(min=self.floor)
        return mask / mask.amax((1, 2), keepdim=True)


def _best_overlaps(places: Tensor, boxes: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the largest IoU of each prediction with a true box, 1 where there is none."""
    if not len(boxes):
        return places.new_ones(len(places))
    height, width = shape
    pixels = places * places.new_tensor([width, height, width, height])
    return aligned_iou(pixels[:, None], boxes.to(pixels)[None])[0].amax(1)
