"""Where the edges of boxes lie, learnt as distributions from the teacher's."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmkd.distillation.losses._dense import (
    EPS,
    Assignment,
    Groups,
    Priors,
    aligned_iou,
    compared,
    distributions,
    divergences,
)
from mmkd.distillation.losses._errors import check_temperature

__all__ = ['LDLoss', 'valuable_region']

CANDIDATES = 9


class LDLoss(nn.Module):
    r"""Localisation distillation in two regions, and class distillation on objects.

    ``L = a L_main + b L_vlr + c L_kd``

    An edge ``e`` of a box (left, top, right, bottom) is a distribution over ``n + 1`` places with
    logits ``z``. With ``D_T(z_s, z_t) = T^2 / K sum_k p_t (log p_t - log p_s)``, ``p = softmax(z /
    T)``, the mean over the ``K`` numbers of ``z``:

    * ``L_main = 1/4 sum_{i in P} max_c sigma(y_ic) sum_e D_T(z^s_ie, z^t_ie)``, over the priors
      ``P`` that hold an object, weighted by the student's class logits ``y`` (no gradient);
    * ``L_vlr = 1/16 sum_{i in V} v_i sum_e D_T(z^s_ie, z^t_ie)``, over the valuable localisation
      region ``V`` with the weights ``v`` of :func:`valuable_region`;
    * ``L_kd = sum_l 1/|P_l| sum_{i in P_l} w_i D_T'(y^s_i, y^t_i)``, level by level, with the label
      weights ``w``.

    All are 0 where student and teacher are equal. The first two are sums that no number of objects
    divides, as published: they grow with the objects in a process's batch.

    Source: Z. Zheng, R. Ye, P. Wang, D. Ren, W. Zuo, Q. Hou, M.-M. Cheng, "Localization
    Distillation for Dense Object Detection", CVPR 2022, arXiv 2102.12252, and its code, for GFL on
    COCO: ``a = b = 0.25``, ``T = 10``, ``c = 10``, ``T' = 2``. Its config for R50 also imitates
    features where priors overlap objects, with weight 2: that is a term of its own, for instance
    FGD. Its ``loss_kd_neg`` is multiplied by 0 there and left out here.

    Args:
        main_weight: ``a``; at 0 the part is left out, likewise below.
        vlr_weight: ``b``.
        class_weight: ``c``.
        temperature: ``T`` > 0.
        class_temperature: ``T'`` > 0.

    Raises:
        InputError: a temperature is not above 0.
    """

    needs_distributions = True

    def __init__(self, main_weight: float = 0.25, vlr_weight: float = 0.25,
                 class_weight: float = 10.0, temperature: float = 10.0,
                 class_temperature: float = 2.0) -> None:
        super().__init__()
        check_temperature(temperature, 'LDLoss')
        check_temperature(class_temperature, 'LDLoss', 'class_temperature')
        self.main_weight, self.vlr_weight = main_weight, vlr_weight
        self.class_weight = class_weight
        self.temperature, self.class_temperature = temperature, class_temperature

    def forward(self, student: Groups, teacher: Groups, assignment: Assignment, priors: Priors,
                boxes: Sequence[Tensor]) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: ``cls``, for each level ``(B, C, H, W)`` logits, and ``box``, ``(B, 4 (n + 1),
                H, W)``.
            teacher: the same; gets no gradient.
            assignment: the student's.
            priors: the student's anchors.
            boxes: for each image ``(m, 4)``, ``x_0, y_0, x_1, y_1`` in pixels of the input.

        Returns:
            a scalar.

        Raises:
            InputError: the maps differ in shape, or the boxes are no distributions.
        """
        classes = compared(student, teacher, 'cls', assignment, 'LDLoss')
        edges = [tuple(distributions(side, 'LDLoss') for side in pair)
                 for pair in compared(student, teacher, 'box', assignment, 'LDLoss')]
        positive = assignment.is_positive()
        total = classes[0][0].new_zeros(())
        if self.main_weight:
            scores = [ours.detach().sigmoid().amax(-1) * where
                      for (ours, _), where in zip(classes, positive, strict=True)]
            total = total + self.main_weight * self._edges(edges, scores) / 4
        if self.vlr_weight:
            region = _regions(priors, boxes, assignment)
            total = total + self.vlr_weight * self._edges(edges, region) / 16
        if self.class_weight:
            total = total + self.class_weight * self._classes(classes, positive, assignment)
        return total

    def _edges(self, edges: Sequence[tuple[Tensor, ...]], weights: Sequence[Tensor]) -> Tensor:
        parts = []
        for (ours, theirs), weight in zip(edges, weights, strict=True):
            where = weight > 0
            found = divergences(ours[where], theirs[where], self.temperature).mean(-1).sum(-1)
            parts.append((found * weight[where]).sum())
        return torch.stack(parts).sum()

    def _classes(self, classes: Sequence[tuple[Tensor, Tensor]], positive: Sequence[Tensor],
                 assignment: Assignment) -> Tensor:
        parts = []
        for (ours, theirs), where, weight in zip(classes, positive, assignment.label_weights,
                                                 strict=True):
            found = divergences(ours[where], theirs[where], self.class_temperature).mean(-1)
            parts.append((found * weight[where]).sum() / where.sum().clamp(min=1))
        return torch.stack(parts).sum()


def _regions(priors: Priors, boxes: Sequence[Tensor], assignment: Assignment) -> list[Tensor]:
    """Return for each level ``(B, N_l)``, the weights ``v``."""
    images = [valuable_region(priors.boxes, truth, [level[i] > 0 for level in
                                                    assignment.label_weights])
              for i, truth in enumerate(boxes)]
    return [torch.stack(level) for level in zip(*images, strict=True)]


@torch.no_grad()
def valuable_region(anchors: Sequence[Tensor], boxes: Tensor, valid: Sequence[Tensor]
                    ) -> list[Tensor]:
    r"""Return the weight of each prior in the valuable localisation region of one image.

    ``v_i = max_g [thr_g / 4 <= DIoU(i, g) < thr_g] IoU(i, g)``, where ``thr_g`` is the threshold
    above which ATSS takes an anchor for object ``g``: mean plus (unbiased) standard deviation of
    the IoUs of the nine anchors of each level whose centres lie nearest. ``DIoU = IoU - d^2 /
    c^2`` with the distance ``d`` of the centres and the diagonal ``c`` of the smallest box around
    both.

    So in the code of LD, where a prior in the region of one object may hold another, too.

    Args:
        anchors: for each level ``(N_l, 4)``.
        boxes: ``(m, 4)``, the objects.
        valid: for each level ``(N_l,)``, whether the anchor lies in the image.

    Returns:
        for each level ``(N_l,)``; 0 outside the region.
    """
    found = [level.new_zeros(len(level)) for level in anchors]
    inside = [level[where] for level, where in zip(anchors, valid, strict=True)]
    every = torch.cat(inside)
    if not len(boxes) or not len(every):
        return found
    boxes = boxes.to(every)
    iou = aligned_iou(every[:, None], boxes[None])[0]
    distance = torch.linalg.vector_norm(_centres(every)[:, None] - _centres(boxes)[None], dim=-1)
    hull = (torch.maximum(every[:, None, 2:], boxes[None, :, 2:])
            - torch.minimum(every[:, None, :2], boxes[None, :, :2]))
    diou = iou - distance.square() / hull.square().sum(-1).clamp(min=EPS)
    counts = [len(level) for level in inside]
    candidates = [iou_l.gather(0, near_l.topk(min(CANDIDATES, len(near_l)), 0, largest=False)[1])
                  for iou_l, near_l in zip(iou.split(counts), distance.split(counts), strict=True)]
    overlaps = torch.cat(candidates)
    threshold = overlaps.mean(0) + overlaps.std(0)
    weights = (iou * ((diou >= threshold / 4) & (diou < threshold))).amax(1)
    for level, where, part in zip(found, valid, weights.split(counts), strict=True):
        level[where] = part
    return found


def _centres(boxes: Tensor) -> Tensor:
    return (boxes[:, :2] + boxes[:, 2:]) / 2
