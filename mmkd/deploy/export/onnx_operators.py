"""Two operators that ONNX has and PyTorch has not: NMS and RoIAlign, for graphs that are exported.

Each is an operator of PyTorch that runs as MMDetection's does, and whose place in an exported graph
ONNX's own takes: ``NonMaxSuppression`` and ``RoiAlign``.
"""

from collections.abc import Callable
from typing import Any

import mmcv.ops
import torch
from torch import Tensor

__all__ = ['kept_by_nms', 'roi_align', 'translations']


@torch.library.custom_op('mmkd::kept_by_nms', mutates_args=())
def kept_by_nms(boxes: Tensor, scores: Tensor, iou_threshold: float, limit: int) -> Tensor:
    """Say of each box whether NMS keeps it, which has a fixed size, whatever is kept.

    Args:
        boxes: ``(N, K, 4)`` float32, ``(x1, y1, x2, y2)``; those of an image compete.
        scores: ``(N, K)`` float32; a box that scores less than 0 is not looked at.
        iou_threshold: Of two boxes that overlap by more, the one with the lower score is dropped.
        limit: The best so many of an image are kept at most.

    Returns:
        ``(N, K)`` bool.
    """
    kept = torch.zeros_like(scores, dtype=torch.bool)
    for own, image, score in zip(kept, boxes, scores, strict=True):
        there = (score >= 0).nonzero()[:, 0]
        if len(there):
            found = mmcv.ops.nms(image[there], score[there], iou_threshold)[1]
            own[there[found[:limit]]] = True
    return kept


@kept_by_nms.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float, limit: int) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


@torch.library.custom_op('mmkd::roi_align', mutates_args=())
def roi_align(feature: Tensor, boxes: Tensor, images: Tensor, height: int, width: int,
              scale: float, ratio: int, aligned: bool) -> Tensor:
    """Read a feature in boxes: the means of ``height`` x ``width`` bins of each.

    Source: K. He, G. Gkioxari, P. Dollár, R. Girshick, "Mask R-CNN", ICCV 2017, arXiv 1703.06870.

    Args:
        feature: ``(N, C, H, W)`` float32.
        boxes: ``(M, 4)`` float32, ``(x1, y1, x2, y2)`` in pixels of the input.
        images: ``(M,)`` int64, the place of each box in the batch.
        height: Bins from top to bottom.
        width: Bins from left to right.
        scale: Cells of the feature per pixel.
        ratio: Points along each axis of a bin, or 0 for its size in cells, rounded up.
        aligned: Whether pixels are counted from their edge, as they should be.

    Returns:
        ``(M, C, height, width)`` float32.
    """
    rois = torch.cat((images[:, None].to(boxes.dtype), boxes), 1)
    return mmcv.ops.roi_align(feature, rois, (height, width), scale, ratio, 'avg', aligned)


@roi_align.register_fake
def _(feature: Tensor, boxes: Tensor, images: Tensor, height: int, width: int, scale: float,
      ratio: int, aligned: bool) -> Tensor:
    return feature.new_empty(boxes.shape[0], feature.shape[1], height, width)


def translations() -> dict[Callable, Callable]:
    """What stands for the two in ONNX: a ``custom_translation_table`` of ``torch.onnx.export``."""
    # A package of the extra `deploy`, which the exporter needs, too.
    from onnxscript import opset18 as op

    def nms(boxes: Any, scores: Any, iou_threshold: float, limit: int) -> Any:
        chosen = op.NonMaxSuppression(
            boxes, op.Unsqueeze(scores, op.Constant(value_ints=[1])),
            op.Constant(value_ints=[limit]), op.Constant(value_floats=[iou_threshold]),
            # Only what scores more is looked at.
            op.Constant(value_floats=[-0.5]))
        # Rows of it are image, class, box.
        places = op.Gather(chosen, op.Constant(value_ints=[0, 2]), axis=1)
        ones = op.ConstantOfShape(op.Shape(chosen, start=0, end=1), value=_one())
        none = op.ConstantOfShape(op.Shape(scores))
        return op.Cast(op.ScatterND(none, places, ones), to=9)

    def align(feature: Any, boxes: Any, images: Any, height: int, width: int, scale: float,
              ratio: int, aligned: bool) -> Any:
        return op.RoiAlign(
            feature, boxes, images, mode='avg', output_height=height, output_width=width,
            spatial_scale=scale, sampling_ratio=ratio,
            coordinate_transformation_mode='half_pixel' if aligned else 'output_half_pixel')

    return {torch.ops.mmkd.kept_by_nms.default: nms, torch.ops.mmkd.roi_align.default: align}


def _one() -> Any:
    import onnx

    return onnx.helper.make_tensor('one', onnx.TensorProto.FLOAT, [1], [1.0])
