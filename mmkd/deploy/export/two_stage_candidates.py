"""What a two-stage detector of MMDetection would find, were it not for its last NMS."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from mmdet.models.roi_heads import CascadeRoIHead
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmkd.deploy.device.nms import Nms
from mmkd.deploy.device.runtime import Detections
from mmkd.deploy.export.agreement import Tolerance

__all__ = ['two_stage_candidates']

# What rounding may change of the IoU of two proposals.
IOU_ROUNDING = 1e-3


@torch.no_grad()
def two_stage_candidates(model: nn.Module, inputs: Tensor, samples: Sequence[DetDataSample],
                         nms: Nms, tolerance: Tolerance
                         ) -> tuple[list[Detections], list[Detections]]:
    """PyTorch's boxes before the last NMS, of the proposals that the RPN's NMS may have left.

    Args:
        model: The PyTorch detector.
        inputs: ``(N, 3, H, W)`` float32.
        samples: What belongs to the inputs.
        nms: The last NMS.
        tolerance: By which a score may miss the threshold.

    Returns:
        of each image all boxes, and those of doubtful proposals: such as the RPN keeps or drops by
        rounding, as their IoU with one that is kept is its threshold, or as they score as much as
        the last one; and such as overlap a doubtful one.
    """
    head, metas = model.rpn_head, [sample.metainfo for sample in samples]
    features = model.extract_feat(inputs)
    maps = head(features)
    every = copy.deepcopy(head.test_cfg)
    every.update(max_per_img=10 ** 9, nms=dict(type='nms', iou_threshold=1.0))
    kept = head.predict_by_feat(*maps, batch_img_metas=metas)
    unsure = [_doubtful(all_of_image, own, head.test_cfg, tolerance) for all_of_image, own in
              zip(head.predict_by_feat(*maps, batch_img_metas=metas, cfg=every), kept, strict=True)]
    doubtful = _second_stage(model, features, unsure, metas, nms.score_thr - tolerance.score)
    certain = _second_stage(model, features, [own.bboxes for own in kept], metas,
                            nms.score_thr - tolerance.score)
    both = [Detections(*map(np.concatenate, zip(*pair, strict=True)))
            for pair in zip(certain, doubtful, strict=True)]
    return both, doubtful


def _doubtful(every: InstanceData, kept: InstanceData, cfg: dict, tolerance: Tolerance) -> Tensor:
    """Those boxes ``(K, 4)`` of ``every`` that rounding may keep or drop."""
    threshold = cfg.nms.iou_threshold
    apart = bbox_overlaps(every.bboxes, kept.bboxes) - threshold
    chosen = (apart.abs() < IOU_ROUNDING).any(1)
    if len(kept.scores) == cfg.max_per_img:
        chosen |= (every.scores - kept.scores.min()).abs() < tolerance.score
    touched = bbox_overlaps(every.bboxes, every.bboxes[chosen]) > threshold - IOU_ROUNDING
    return every.bboxes[chosen | touched.any(1)]


def _second_stage(model: nn.Module, features: Sequence[Tensor], boxes: Sequence[Tensor],
                  metas: Sequence[dict], score_thr: float) -> list[Detections]:
    """What the heads make of proposals ``(P, 4)`` of each image, above a threshold."""
    roi_head = model.roi_head
    head = roi_head.bbox_head
    classes = (head[-1] if isinstance(roi_head, CascadeRoIHead) else head).num_classes
    found = []
    for index, (own, meta) in enumerate(zip(boxes, metas, strict=True)):
        levels = [level[index:index + 1] for level in features]
        result, = roi_head.predict_bbox(levels, [meta], [InstanceData(bboxes=own)], None,
                                        rescale=True)
        scores = result.scores[:, :classes]
        rows, labels = (scores > score_thr).nonzero(as_tuple=True)
        # Boxes of a head that asks no class are one for all.
        coordinates = result.bboxes.unflatten(1, (result.bboxes.shape[1] // 4, 4))
        coordinates = coordinates.expand(-1, classes, -1)
        found.append(Detections(coordinates[rows, labels].numpy(), scores[rows, labels].numpy(),
                                labels.numpy()))
    return found
