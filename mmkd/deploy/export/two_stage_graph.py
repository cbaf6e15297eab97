"""A Faster or Cascade R-CNN as one function from image to candidates for the last NMS."""

from collections.abc import Sequence

import torch
from mmcv.ops import RoIAlign
from mmdet.models.dense_heads import RPNHead
from mmdet.models.detectors import TwoStageDetector
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor, nn

from mmkd.deploy.export.dense_graph import Candidates, nms_of, rows_of
from mmkd.deploy.export.detr_graph import whole_sizes
from mmkd.deploy.export.onnx_operators import kept_by_nms, roi_align
from mmkd.errors import UserError

__all__ = ['ExportableTwoStage', 'two_stage_graph']


class ExportableTwoStage(nn.Module):
    """A two-stage detector from the normalised image to decoded boxes before the last NMS.

    Proposals are those that the RPN's NMS leaves, and as many for every image as its ``test_cfg``
    allows: where there are fewer, the rest scores 0. The parts are the detector's own, shared and
    not copied; it must be in evaluation mode.

    Source: S. Ren, K. He, R. Girshick, J. Sun, "Faster R-CNN", NeurIPS 2015, arXiv 1506.01497;
    Z. Cai, N. Vasconcelos, "Cascade R-CNN", CVPR 2018, arXiv 1712.00726.

    Args:
        model: An MMDetection two-stage detector.

    Attributes:
        nms: What makes detections of the candidates.

    Raises:
        UserError: If a part of it or its ``test_cfg`` is of a kind that is not exported.
    """

    input_names = ('image', 'sizes')
    output_names = ('boxes', 'scores', 'labels')

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        roi_head = model.roi_head
        self.model = model
        cascade = isinstance(roi_head, CascadeRoIHead)
        self.heads = list(roi_head.bbox_head) if cascade else [roi_head.bbox_head]
        self.extractors = (list(roi_head.bbox_roi_extractor) if cascade
                           else [roi_head.bbox_roi_extractor])
        _check_parts(model, self.heads, self.extractors)
        rpn, rcnn = model.rpn_head.test_cfg, roi_head.test_cfg
        self.rpn_nms = nms_of(rpn, max_per_img=rpn.get('max_per_img', 0), score_thr=0, clip=False,
                              min_size=rpn.get('min_bbox_size', -1))
        self.nms = nms_of(rcnn, max_per_img=max(rcnn.max_per_img, 0), score_thr=rcnn.score_thr,
                          clip=False, min_size=-1)
        if self.rpn_nms.max_per_img < 1:
            raise UserError('test_cfg.rpn must limit the proposals to be exported: set '
                            'max_per_img, such as 1000')

    def forward(self, image: Tensor, sizes: Tensor | None = None) -> Candidates:
        """Find candidates.

        Args:
            image: ``(N, 3, H, W)``, as the model's data preprocessor returns it.
            sizes: ``(N, 2)`` int64, height and width of each image without its padding, which is
                on the right and at the bottom; by default there is none.

        Returns:
            boxes ``(N, K, 4)`` float32, ``(x1, y1, x2, y2)`` in pixels of the input and within the
            image; scores ``(N, K)`` float32, 0 for 'nothing'; labels ``(N, K)`` int64. Of each
            proposal there are as many as can score above the threshold.
        """
        sizes = whole_sizes(image) if sizes is None else sizes
        # (N, 1, 4): the largest x1, y1, x2, y2 that each image holds.
        limits = sizes.flip(1).repeat(1, 2)[:, None].to(image.dtype)
        features = self.model.extract_feat(image)
        boxes, exists = self._proposals(features, limits)
        logits = []
        for stage, head in enumerate(self.heads):
            found, deltas = self._look(stage, features, boxes)
            logits.append(found)
            if stage + 1 < len(self.heads):
                best = found[..., :-1].argmax(-1, keepdim=True)
                boxes = self._boxes(head, boxes, deltas, best, limits)[:, :, 0]
        scores = (sum(logits) / len(logits)).softmax(-1)[..., :-1]
        scores, labels = scores.topk(self._classes(scores.shape[-1]))
        scores = torch.where(exists[..., None] & (scores > self.nms.score_thr), scores, 0.0)
        return (self._boxes(head, boxes, deltas, labels, limits).flatten(1, 2), scores.flatten(1),
                labels.flatten(1))

    def _proposals(self, features: Sequence[Tensor], limits: Tensor) -> tuple[Tensor, Tensor]:
        """The RPN's boxes ``(N, P, 4)``, and which of them exist, ``(N, P)`` bool."""
        head, nms = self.model.rpn_head, self.rpn_nms
        maps = head(features)
        priors = head.prior_generator.grid_priors(
            [level.shape[-2:] for level in maps[0]], dtype=torch.float32, device=limits.device)
        levels = [self._level(*level) for level in zip(*maps, priors, strict=True)]
        scores, deltas, priors = (torch.cat(part, 1) for part in zip(*levels, strict=True))
        # MMDetection's coders take the boxes of one image.
        decoded = _decoded(head.bbox_coder, priors.flatten(0, 1), deltas.flatten(0, 1))
        boxes = _clipped(head.bbox_coder, decoded.view(deltas.shape), limits)
        if nms.min_size >= 0:
            large = (boxes[..., 2:] - boxes[..., :2] > nms.min_size).all(-1)
            scores = torch.where(large, scores, -1.0)
            boxes = torch.where(large[..., None], boxes, 0.0)
        apart = boxes
        if nms.class_aware:
            # Levels do not compete: as mmcv's batched_nms moves them apart.
            number = torch.cat([torch.full((level[0].shape[1],), float(index))
                                for index, level in enumerate(levels)]).to(boxes.device)
            apart = boxes + (number * (boxes.amax((1, 2)) + 1)[:, None])[..., None]
        kept = kept_by_nms(apart, scores, nms.iou_threshold, nms.max_per_img)
        best, chosen = torch.where(kept, scores, -1.0).topk(min(nms.max_per_img, scores.shape[1]))
        return boxes.gather(1, chosen[..., None].expand(-1, -1, 4)), best >= 0

    def _level(self, scores: Tensor, deltas: Tensor, priors: Tensor
               ) -> tuple[Tensor, Tensor, Tensor]:
        """The best of a level: scores ``(N, k)``, deltas and priors ``(N, k, 4)``."""
        head = self.model.rpn_head
        scores = rows_of(scores, head.cls_out_channels)
        scores = (scores.sigmoid() if head.use_sigmoid_cls else scores.softmax(-1))[..., 0]
        limit = head.test_cfg.get('nms_pre', -1)
        scores, chosen = scores.topk(min(limit, scores.shape[1]) if limit > 0 else scores.shape[1])
        deltas = rows_of(deltas, 4).gather(1, chosen[..., None].expand(-1, -1, 4))
        return scores, deltas, get_box_tensor(priors)[chosen]

    def _look(self, stage: int, features: Sequence[Tensor], boxes: Tensor
              ) -> tuple[Tensor, Tensor]:
        """What a head says of boxes ``(N, P, 4)``: logits ``(N, P, C + 1)`` and deltas."""
        batch, count = boxes.shape[:2]
        images = torch.arange(batch, device=boxes.device)[:, None].expand(-1, count).flatten()
        read = _read(self.extractors[stage], features, boxes.flatten(0, 1), images)
        if self.model.roi_head.with_shared_head:
            read = self.model.roi_head.shared_head(read)
        return tuple(rows.unflatten(0, (batch, count)) for rows in self.heads[stage](read))

    def _boxes(self, head: nn.Module, boxes: Tensor, deltas: Tensor, labels: Tensor,
               limits: Tensor) -> Tensor:
        """Boxes ``(N, P, k, 4)`` made of ``(N, P, 4)`` for labels ``(N, P, k)``."""
        deltas = deltas.unflatten(-1, (-1, 4))
        shape = (*labels.shape, 4)
        if head.reg_class_agnostic:
            deltas = deltas.expand(shape)
        else:
            deltas = deltas.gather(2, labels[..., None].expand(shape))
        decoded = _decoded(head.bbox_coder, boxes[:, :, None].expand(shape).flatten(0, 2),
                           deltas.flatten(0, 2))
        return _clipped(head.bbox_coder, decoded.view(shape), limits[:, None])

    def _classes(self, classes: int) -> int:
        """How many classes of a proposal can be above the threshold: their scores sum up to 1."""
        threshold = self.nms.score_thr
        return min(classes, int(1 / threshold)) if threshold > 0 else classes


def _decoded(coder: DeltaXYWHBBoxCoder, boxes: Tensor, deltas: Tensor) -> Tensor:
    return get_box_tensor(coder.decode(boxes, deltas))


def _clipped(coder: DeltaXYWHBBoxCoder, boxes: Tensor, limits: Tensor) -> Tensor:
    return torch.minimum(boxes.clamp(min=0), limits) if coder.clip_border else boxes


def _read(extractor: nn.Module, features: Sequence[Tensor], boxes: Tensor,
          images: Tensor) -> Tensor:
    """What ``SingleRoIExtractor`` reads, ``(M, C, h, w)``, in each box from the level for its size.

    Elsewhere a box is moved to where it has no area, which costs nothing, and left out.
    """
    # floor(log2(size / finest + 1e-6)) says which level it is; compared as powers, as a logarithm
    # may be rounded otherwise where the graph runs.
    size = (boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt() / extractor.finest_scale + 1e-6
    level = sum((size >= 2.0 ** step).long() for step in range(1, extractor.num_inputs)) \
        if extractor.num_inputs > 1 else torch.zeros_like(images)
    total = None
    for index, layer in enumerate(extractor.roi_layers):
        here = level == index
        own = torch.where(here[:, None], boxes, 0.0)
        read = roi_align(features[index], own, images, *layer.output_size,
                         float(layer.spatial_scale), int(layer.sampling_ratio), layer.aligned)
        read = torch.where(here[:, None, None, None], read, 0.0)
        total = read if total is None else total + read
    return total


def _check_parts(model: nn.Module, heads: Sequence[nn.Module],
                 extractors: Sequence[nn.Module]) -> None:
    roi_head = model.roi_head
    if roi_head.with_mask:
        raise _refusal(model, 'it finds masks, and only boxes are exported')
    predicting = ('predict', 'predict_by_feat', '_predict_by_feat_single', '_bbox_post_process')
    parts = [(model.rpn_head, RPNHead, predicting)]
    parts += [(head, BBoxHead, ('predict_by_feat', '_predict_by_feat_single', 'regress_by_class'))
              for head in heads]
    parts += [(extractor, SingleRoIExtractor, ('forward', 'map_roi_levels'))
              for extractor in extractors]
    kind = CascadeRoIHead if isinstance(roi_head, CascadeRoIHead) else StandardRoIHead
    parts.append((roi_head, kind, ('predict', 'predict_bbox', '_bbox_forward', '_refine_roi')))
    for part, kind, names in parts:
        own = [name for name in names
               if getattr(type(part), name, None) is not getattr(kind, name, None)]
        if own:
            raise _refusal(model, f'its {type(part).__name__} differs from {kind.__name__} in '
                                  f'{", ".join(own)}')
    for part in (model.rpn_head, *heads):
        if type(part.bbox_coder) is not DeltaXYWHBBoxCoder:
            raise _refusal(model, f'it codes boxes by a {type(part.bbox_coder).__name__}, and only '
                                  'DeltaXYWHBBoxCoder is exported')
    for head in heads:
        if (head.custom_cls_channels or head.custom_activation
                or not (head.with_cls and head.with_reg)):
            raise _refusal(model, f'its {type(head).__name__} does not give one softmax over '
                                  'classes and background, and boxes')
    for layer in (layer for extractor in extractors for layer in extractor.roi_layers):
        if type(layer) is not RoIAlign or layer.pool_mode != 'avg':
            raise _refusal(model, f'it reads features by {layer}, and only an averaging RoIAlign '
                                  'is exported')


def _refusal(model: nn.Module, cause: str) -> UserError:
    return UserError(f'the {type(model).__name__} cannot be exported because {cause}: '
                     'give the config of a Faster R-CNN, a Cascade R-CNN or a one-stage detector')


def two_stage_graph(model: nn.Module) -> ExportableTwoStage | None:
    """Return a two-stage detector as one function from image to candidates.

    Returns:
        None if the model is another kind of detector.

    Raises:
        UserError: As :class:`ExportableTwoStage`.
    """
    if not isinstance(model, TwoStageDetector):
        return None
    if type(model).predict is not TwoStageDetector.predict or not (
            model.with_rpn and model.with_roi_head):
        raise _refusal(model, 'it does not find boxes by an RPN and a RoI head')
    return ExportableTwoStage(model)
