"""Which dense heads are exported, and what each does in its own way.

What a head of MMDetection predicts is fixed by four of its methods. A head that has all four from
one of the classes below is exported by the adapter for it, whatever its name; one with other
methods of its own is refused.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from mmdet.models.dense_heads import (
    FoveaHead,
    GFLHead,
    RepPointsHead,
    TOODHead,
    YOLOV3Head,
    YOLOXHead,
)
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.detectors import SingleStageDetector
from torch import Tensor, nn

from mmkd.deploy.device.nms import Nms
from mmkd.deploy.export.dense_graph import Candidates, ExportableDense, nms_of, rows_of
from mmkd.deploy.export.detr_graph import whole_sizes
from mmkd.errors import UserError

__all__ = ['dense_graph']

_PREDICTING = ('predict', 'predict_by_feat', '_predict_by_feat_single', '_bbox_post_process')


class _ExportableGFL(ExportableDense):
    """Distances are the means of distributions, in strides, from the centres of anchors."""

    def _numbers(self, head: nn.Module) -> int:
        return 4 * (head.reg_max + 1)

    def _decode(self, number: int, priors: Tensor, boxes: Tensor) -> Tensor:
        head = self.model.bbox_head
        distances = head.integral(boxes) * head.prior_generator.strides[number][0]
        return head.bbox_coder.decode(head.anchor_center(priors), distances)


class _ExportableTOOD(ExportableDense):
    """Scores are probabilities and boxes are decoded already, in strides; nothing clips them."""

    def _nms(self, head: nn.Module) -> Nms:
        return replace(super()._nms(head), clip=False)

    def _scores(self, scores: Tensor) -> Tensor:
        return scores

    def _decode(self, number: int, priors: Tensor, boxes: Tensor) -> Tensor:
        return boxes * self.model.bbox_head.prior_generator.strides[number][0]


class _ExportableRepPoints(ExportableDense):
    """Boxes are those around points, in strides from the prior."""

    def _decode(self, number: int, priors: Tensor, boxes: Tensor) -> Tensor:
        return boxes * self.model.bbox_head.point_strides[number] + priors[:, :2].repeat(1, 2)


class _ExportableFovea(ExportableDense):
    """Distances are exponents, and boxes end a pixel before the image does.

    So the graph clips them itself, and must be told how large each image is.
    """

    input_names = ('image', 'sizes')

    def forward(self, image: Tensor, sizes: Tensor | None = None) -> Candidates:
        boxes, scores, labels = super().forward(image)
        last = (whole_sizes(image) if sizes is None else sizes).flip(1).repeat(1, 2)[:, None] - 1
        return torch.minimum(boxes.clamp(min=0), last.to(boxes.dtype)), scores, labels

    def _nms(self, head: nn.Module) -> Nms:
        return replace(super()._nms(head), clip=False)

    def _decode(self, number: int, priors: Tensor, boxes: Tensor) -> Tensor:
        distances = self.model.bbox_head.base_edge_list[number] * boxes.exp()
        return torch.cat((priors - distances[:, :2], priors + distances[:, 2:]), 1)


class _ExportableYOLOv3(ExportableDense):
    """One map of boxes, objectness and classes; the best candidates are those of all levels.

    Objectness has a threshold of its own and multiplies the scores after theirs.
    """

    def forward(self, image: Tensor) -> Candidates:
        head = self.model.bbox_head
        maps, = head(self.model.extract_feat(image))
        rows = [rows_of(level.float(), head.num_attrib) for level in maps]
        priors = self._priors([level.shape[-2:] for level in maps], image.device)
        boxes = torch.cat([
            head.bbox_coder.decode(own, torch.cat((row[..., :2].sigmoid(), row[..., 2:4]), -1),
                                   stride)
            for row, own, stride in zip(rows, priors, head.featmap_strides, strict=True)], 1)
        objectness, scores = torch.cat(rows, 1)[..., 4:].sigmoid().split((1, head.num_classes), -1)
        found = objectness >= head.test_cfg.get('conf_thr', -1)
        scores, chosen, labels = self._best(torch.where(found, scores, 0.0))
        return (self._gather(boxes, chosen), scores * self._gather(objectness, chosen)[..., 0],
                labels)

    def _nms(self, head: nn.Module) -> Nms:
        return replace(super()._nms(head), clip=False)

    def _check(self, head: nn.Module) -> None:
        self._check_limits()


class _ExportableYOLOX(ExportableDense):
    """Each cell has one candidate, of its best class, whose score objectness multiplies first."""

    def _nms(self, head: nn.Module) -> Nms:
        # It returns all detections, of any size, and clips none.
        return nms_of(head.test_cfg, max_per_img=0, score_thr=head.test_cfg.score_thr, min_size=-1,
                      clip=False)

    def _check(self, head: nn.Module) -> None:
        pass

    def _priors(self, sizes: Sequence[Sequence[int]], device: torch.device) -> list[Tensor]:
        return self.model.bbox_head.prior_generator.grid_priors(
            sizes, dtype=torch.float32, device=device, with_stride=True)

    def _level(self, number: int, priors: Tensor, scores: Tensor, boxes: Tensor,
               factors: Tensor | None = None) -> Candidates:
        head = self.model.bbox_head
        scores, labels = rows_of(scores, head.cls_out_channels).sigmoid().max(-1)
        scores = scores * rows_of(factors, 1)[..., 0].sigmoid()
        return (head._bbox_decode(priors, rows_of(boxes, 4)),
                torch.where(scores >= self.nms.score_thr, scores, 0.0), labels)


_ADAPTERS = {
    BaseDenseHead: ExportableDense, GFLHead: _ExportableGFL, TOODHead: _ExportableTOOD,
    RepPointsHead: _ExportableRepPoints, FoveaHead: _ExportableFovea,
    YOLOV3Head: _ExportableYOLOv3, YOLOXHead: _ExportableYOLOX}


def dense_graph(model: nn.Module, dynamic: bool = False) -> ExportableDense | None:
    """Return a dense detector as one function from image to candidates; arguments as of the class.

    Returns:
        None if the model is another kind of detector.

    Raises:
        UserError: As :class:`ExportableDense`, or if the head predicts in a way of its own.
    """
    head = getattr(model, 'bbox_head', None)
    if not isinstance(model, SingleStageDetector) or not hasattr(head, 'prior_generator'):
        return None
    if getattr(model, 'mask_head', None) is not None:
        raise UserError(f'the model is a {type(model).__name__}, which finds masks, and only boxes '
                        'can be exported: give the config of a detector without a mask_head')
    for kind, adapter in _ADAPTERS.items():
        if not _own_methods(head, kind):
            return adapter(model, dynamic)
    name = type(head).__name__
    raise UserError(
        f"the {name} predicts by steps of its own ({', '.join(_own_methods(head, BaseDenseHead))}),"
        f' which cannot be exported: use a head that predicts as '
        f"{', '.join(kind.__name__ for kind in list(_ADAPTERS)[1:])}, RetinaHead or FCOSHead does")


def _own_methods(head: nn.Module, kind: type) -> list[str]:
    """Which of the methods that predict are not those of ``kind``."""
    return [name for name in _PREDICTING
            if getattr(type(head), name, None) is not getattr(kind, name, None)]
