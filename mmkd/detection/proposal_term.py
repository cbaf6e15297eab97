"""A term between the class logits of two-stage detectors, on the student's own proposals."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet.models.roi_heads import StandardRoIHead
from torch import Tensor, nn

from mmkd.detection.teacher_maps import class_index
from mmkd.distillation.branch import Features
from mmkd.distillation.step import Step
from mmkd.distillation.taps import Tapped
from mmkd.distillation.teachers import Teacher
from mmkd.distillation.term import Term
from mmkd.errors import UserError
from mmkd.registry import TERMS

__all__ = ['ProposalTerm']

LOGITS = 'roi_head.bbox_head:0'
ROIS = 'roi_head.bbox_roi_extractor:inputs:1'
LABELS = 'roi_head.bbox_head.get_targets():0'
MAPS = 'roi_head.bbox_roi_extractor:input:*'


@TERMS.register_module()
class ProposalTerm(Term):
    """A term between class logits ``(N, C + 1)`` of the proposals that the student is trained on.

    The teacher's second stage, frozen, takes the student's ``N`` sampled proposals of all images
    and its own feature maps; so both say something of the same regions. Its own proposals serve
    nothing. The loss gets the student's logits with gradients, the teacher's without, and, if it
    asks, ``labels`` ``(N,)``: what each proposal was to be in this very pass, ``C`` for background.
    Boxes are left out, as in the published code of DKD.

    Student and teacher have a ``StandardRoIHead`` with softmax classes (Faster and Mask R-CNN).
    Where a teacher names its classes, those of the student are picked out of them. The teacher
    itself is asked in every step, so that a cache does not serve.

    Source: B. Zhao, Q. Cui, R. Song, Y. Qiu, J. Liang, "Decoupled Knowledge Distillation", CVPR
    2022, arXiv 2203.08679, and its code for detection (mdistiller), which runs the student's head a
    second time; here its logits are those of its own loss.

    Args:
        loss: see :class:`~mmkd.distillation.Term`, likewise below.
        weight: see there.
        warmup_epochs: see there.
        warmup: see there.
        until: see there.
        gradient_share: see there.
        teachers: see there.

    Raises:
        UserError: as there; and when the run starts, if a head does not fit.
    """

    needs_model = True
    needs_labels = ('labels', )
    """The student's proposals are drawn by them."""

    def __init__(self, loss: dict, weight: float | None = None, warmup_epochs: int = 0,
                 warmup: str = 'linear', until: float | None = None,
                 gradient_share: float | None = None,
                 teachers: Sequence[str] | None = None) -> None:
        super().__init__(loss, LOGITS, MAPS, weight, warmup_epochs=warmup_epochs, warmup=warmup,
                         until=until, gradient_share=gradient_share, teachers=teachers)
        self._index: dict[str, list[int] | None] = {}

    def meet(self, student: nn.Module, teachers: Sequence[Teacher]) -> None:
        """Check that the heads fit; see the base class."""
        self._check('the student', student)
        for teacher in teachers:
            self._check(f"teacher '{teacher.name}'", teacher.model)

    def _check(self, who: str, model: nn.Module | None) -> None:
        head = getattr(model, 'roi_head', None)
        standard = (isinstance(head, StandardRoIHead)
                    and type(head)._bbox_forward is StandardRoIHead._bbox_forward)
        if not standard or _has_other_classes(head.bbox_head):
            kind = ('no roi_head' if head is None else f'the head {type(head).__name__}'
                    if not standard else 'classes that are no softmax')
            raise UserError(f"term '{self.name}' is for two-stage detectors with one second stage "
                            'and softmax classes (StandardRoIHead, as of Faster and Mask R-CNN), '
                            f'and {who} ({type(model).__name__}) has {kind}: take one of these, or '
                            'a method for the features of any detector, such as pkd')

    def student_patterns(self) -> list[str]:
        """Return the logits, the proposals and their labels; see the base class."""
        return [LOGITS, ROIS, LABELS]

    def pair(self, student: Tapped, teachers: Mapping[str, Tapped], step: Step) -> None:
        """Put the student's logits beside the maps that a teacher's are made of."""
        for name, theirs in teachers.items():
            self.pairs[name] = list(student[LOGITS]), list(theirs[MAPS])

    def prepare(self, step: Step, dataset: Any) -> None:
        """Find the student's classes among each teacher's; see the base class."""
        classes = getattr(dataset, 'metainfo', {}).get('classes')
        count = step.model.roi_head.bbox_head.num_classes
        for teacher in self.teachers_of(step):
            index = None if classes is None else class_index(classes, teacher.classes, teacher.name)
            theirs = teacher.model.roi_head.bbox_head.num_classes
            if index is None and theirs != count:
                raise UserError(f"teacher '{teacher.name}' has {theirs} classes and the student "
                                f"{count}, and the teacher's checkpoint does not name its classes: "
                                'add them as meta.dataset_meta.classes')
            # The background comes last.
            self._index[teacher.name] = None if index is None else [*index, theirs]
        super().prepare(step, dataset)

    def features(self, step: Step, source: str) -> tuple[Features, Features]:
        """Return the student's logits and the teacher's for the same proposals."""
        teacher = step.teacher(source)
        maps = [step.taps[source][leaf] for leaf in self.pairs[source][1]]
        with torch.no_grad():
            logits = teacher.model.roi_head._bbox_forward(
                maps, self._rois(step, teacher))['cls_score']
        index = self._index[source]
        return [step.student[LOGITS]], [logits if index is None else logits[:, index]]

    def _rois(self, step: Step, teacher: Teacher) -> Tensor:
        """Return number of image and box of each proposal, in pixels of the teacher's input."""
        own, rois = step.inputs.shape[-2:], step.student[ROIS]
        height, width = (theirs / side for theirs, side in
                         zip(teacher.input_size(own), own, strict=True))
        return rois.detach() * rois.new_tensor([1, width, height, width, height])

    def own_facts(self, step: Step, source: str) -> dict[str, Any]:
        """Return the labels of the proposals as well; see the base class."""
        return super().own_facts(step, source) | dict(labels=step.student[LABELS])


def _has_other_classes(head: nn.Module) -> bool:
    return head.loss_cls.use_sigmoid or head.custom_cls_channels
