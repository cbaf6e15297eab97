"""The student's decoder learns from the teacher's queries, as the teacher assigns them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mmkd.distillation.losses._dense import Groups
from mmkd.distillation.losses._sets import paired_layers, predictions

__all__ = ['QueryPriorLoss']


class QueryPriorLoss(nn.Module):
    r"""Query-prior assignment distillation.

    The student's decoder is run once more, on the teacher's queries in the place of its own. What
    it predicts there is trained on the labels by the student's own loss, with one change: which
    query has which object is not found out from these predictions but from the teacher's for the
    same queries. Layer by layer, in pairs as of :class:`SetKDLoss`:

    ``L = sum_l L_detection(student_l, labels, assignment(teacher_l, labels))``.

    Source: J. Chang, S. Wang, H.-M. Xu, Z. Chen, C. Yang, F. Zhao, "DETRDistill: A Universal
    Knowledge Distillation Framework for DETR-families", ICCV 2023, arXiv 2211.10156; after its
    published code, which runs the student's encoder once more as well, on the same features; here
    the encoder's output is taken as it is. Where a detector finds its queries in the image
    (``as_two_stage``, DINO) its teacher's are those of the same image; the code is for Deformable
    DETR without that.
    """

    def forward(self, student: Groups, teacher: Groups,
                detection_loss: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        """Compute the loss.

        Args:
            student: what the student predicts from the teacher's queries: ``cls``, for each layer
                ``(B, M, C)`` logits, and ``box``, ``(B, M, 4)``.
            teacher: what the teacher predicts from them; gets no gradient.
            detection_loss: of the student's classes and boxes of a layer and the teacher's, by
                which the labels are assigned.

        Returns:
            a scalar.
        """
        classes, boxes = predictions(student, 'QueryPriorLoss', 'the student')
        theirs, places = predictions(teacher, 'QueryPriorLoss', 'the teacher')
        layers = paired_layers(len(classes), len(theirs))
        return torch.stack([
            detection_loss(cls, box, theirs[other].detach(), places[other].detach())
            for cls, box, other in zip(classes, boxes, layers, strict=True)]).sum()
