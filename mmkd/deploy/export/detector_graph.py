"""A CenterNet as one function from image to boxes, and what a runtime must know of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.models.dense_heads import CenterNetHead
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config
from torch import Tensor, nn

from mmkd.deploy.device.metadata import ModelMetadata
from mmkd.deploy.device.nms import Nms
from mmkd.errors import UserError

__all__ = ['ExportableCenterNet', 'detector_metadata', 'largest_stride']


class ExportableCenterNet(nn.Module):
    """A CenterNet detector from the normalised image to decoded boxes, in plain tensors.

    ``K`` is the head's ``test_cfg.topk``. The parts are the detector's own, shared and not
    copied; it must be in evaluation mode.

    Source: X. Zhou, D. Wang, P. Krähenbühl, "Objects as Points", 2019, arXiv 1904.07850.

    Args:
        model: An MMDetection ``CenterNet`` whose head is a ``CenterNetHead``.
        stride: Pixels of the input for each cell of the maps, where the size of the input is to
            stay open; computed from the sizes by default, which fixes them in an exported graph.

    Raises:
        UserError: If the model is another kind of detector.
    """

    output_names = ('boxes', 'scores', 'labels')

    def __init__(self, model: nn.Module, stride: int | None = None) -> None:
        super().__init__()
        head = getattr(model, 'bbox_head', None)
        if not isinstance(head, CenterNetHead):
            kind = type(model).__name__
            if head is not None:
                kind += f' with a {type(head).__name__}'
            raise UserError(f'the model is a {kind} but only classifiers, one-stage detectors with '
                            'a CenterNetHead or with priors, Faster R-CNN, Cascade R-CNN, DETR, '
                            'Conditional DETR, DAB-DETR, Deformable DETR and DINO can be exported: '
                            'give the config of such a student')
        self.model = model
        self.topk = head.test_cfg.topk
        self.kernel = head.test_cfg.local_maximum_kernel
        self.stride = stride

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Detect.

        Args:
            image: ``(N, 3, H, W)``, as the model's data preprocessor returns it, in the precision
                of the weights.

        Returns:
            boxes ``(N, K, 4)`` float32, ``(x1, y1, x2, y2)`` in pixels of the input; scores
            ``(N, K)`` float32, descending; labels ``(N, K)`` int64. Where an image has fewer than
            K peaks, the rest has score 0.
        """
        # From here on in float32, whatever the network computes in.
        heatmap, size, offset = (maps[-1].float() for maps in
                                 self.model.bbox_head(self.model.extract_feat(image)))
        strides = ((self.stride,) * 2 if self.stride else
                   (image.shape[3] / size.shape[3], image.shape[2] / size.shape[2]))
        scores, cells, labels = self._top_peaks(heatmap)
        return self._boxes(size, offset, cells, strides), scores, labels

    def _top_peaks(self, heatmap: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, indices into the H * W cells, and labels of the best peaks, each ``(N, K)``."""
        highest = F.max_pool2d(heatmap, self.kernel, stride=1, padding=self.kernel // 2)
        peaks = torch.where(heatmap == highest, heatmap, 0.0).flatten(2)
        if self.stride:
            # There may be fewer cells than K.
            peaks = F.pad(peaks, (0, self.topk))
        # First within each class: then the label is a division by a constant, not by H * W.
        per_class = self.topk if self.stride else min(self.topk, peaks.shape[2])
        scores, cells = peaks.topk(per_class)
        scores, index = scores.flatten(1).topk(self.topk)
        labels = torch.div(index, per_class, rounding_mode='floor')
        return scores, cells.flatten(1).gather(1, index), labels

    def _boxes(self, size: Tensor, offset: Tensor, cells: Tensor,
               strides: tuple[float, float]) -> Tensor:
        """Boxes ``(N, K, 4)`` of the chosen cells.

        Every cell's box is computed, which costs next to nothing, so that no row or column
        has to be recovered from an index.
        """
        height, width = size.shape[-2:]
        columns = torch.arange(width, dtype=size.dtype, device=size.device)
        rows = torch.arange(height, dtype=size.dtype, device=size.device)[:, None]
        x, y = offset[:, 0] + columns, offset[:, 1] + rows
        half_width, half_height = size[:, 0] / 2, size[:, 1] / 2
        stride_x, stride_y = strides
        boxes = torch.stack(((x - half_width) * stride_x, (y - half_height) * stride_y,
                             (x + half_width) * stride_x, (y + half_height) * stride_y), dim=-1)
        boxes = boxes.flatten(1, 2)
        if self.stride:
            boxes = F.pad(boxes, (0, 0, 0, self.topk))
        return boxes.gather(1, cells.unsqueeze(-1).expand(-1, -1, 4))


@torch.no_grad()
def largest_stride(model: nn.Module, input_size: tuple[int, int]) -> tuple[int, int]:
    """Pixels of the input for each cell of the coarsest map inside, and of the maps of the head.

    Maps of one cell do not count: an attention over channels makes them.

    Args:
        model: A CenterNet detector.
        input_size: Height and width of the input that is tried.
    """
    heights = []

    def record(_: nn.Module, __: tuple, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] > 1:
            heights.append(output.shape[2])

    hooks = [module.register_forward_hook(record) for module in model.modules()]
    image = torch.zeros(1, 3, *input_size)
    try:
        heatmap = model.bbox_head(model.extract_feat(image))[0][-1]
    finally:
        for hook in hooks:
            hook.remove()
    return math.ceil(input_size[0] / min(heights)), math.ceil(input_size[0] / heatmap.shape[2])


def detector_metadata(model: nn.Module, nms: Nms | None = None) -> ModelMetadata:
    """Collect what a runtime must know from ``model.cfg`` and the data preprocessor.

    Args:
        model: A detector.
        nms: Of a dense detector, for images that the test pipeline does not pad.

    Raises:
        UserError: If the class names do not fit the head, or the test pipeline gives inputs of
            different sizes.
    """
    classes = tuple(model.dataset_meta.get('classes', ()))
    head = model.roi_head.bbox_head if hasattr(model, 'roi_head') else model.bbox_head
    known = (head[-1] if isinstance(head, nn.ModuleList) else head).num_classes
    if len(classes) != known:
        raise UserError(f'the model has {known} classes but its checkpoint '
                        f'or config names {len(classes)}: set metainfo=dict(classes=(...)) of '
                        "the config's test data set")
    resize, to_float32 = _test_transforms(model.cfg)
    scale = resize['scale']
    scale = (scale, scale) if isinstance(scale, int) else tuple(scale)
    preprocessor = model.data_preprocessor
    mean, std = _normalisation(preprocessor)
    size, pad_value = preprocessor.pad_size_divisor, preprocessor.pad_value
    padded = _padding(model.cfg, scale, size)
    if padded is not None:
        size, pixel = padded
        pixel = pixel[::-1] if preprocessor._channel_conversion else pixel
        pad_value = tuple(((np.float32(pixel) - np.float32(mean)) / np.float32(std)).tolist())
        # For MMDetection what the pipeline pads belongs to the image.
        nms = nms and replace(nms, clip=False)
    elif size < max(scale):
        raise UserError(
            f'model.data_preprocessor.pad_size_divisor is {size}, so the size of the input '
            f'depends on the image, but an exported model has one: set it to {max(scale)}')
    return ModelMetadata(
        task='detection', classes=classes, input_size=(size, size),
        channel_order='RGB' if preprocessor._channel_conversion else 'BGR', mean=mean, std=std,
        resize_mode='letterbox', resize_to=scale, resize_dtype='float32' if to_float32 else 'uint8',
        pad_value=pad_value, nms=nms)


def _normalisation(preprocessor: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of the three channels; the preprocessor may have none, or one for all."""
    if not preprocessor._enable_normalize:
        return (0.0,) * 3, (1.0,) * 3
    mean, std = (values.flatten().expand(3) for values in (preprocessor.mean, preprocessor.std))
    return tuple(mean.tolist()), tuple(std.tolist())


def _padding(cfg: Config, scale: tuple[int, int], divisor: int
             ) -> tuple[int, Sequence[float]] | None:
    """The side of the square that the test pipeline pads images to, and with what, in BGR order.

    Raises:
        UserError: If it pads otherwise, or the data preprocessor would pad further.
    """
    pads = [step for step in get_test_pipeline_cfg(cfg) if step['type'].split('.')[-1] == 'Pad']
    if not pads:
        return None
    pad = pads[0]
    sides = set(pad.get('size') or (scale if pad.get('pad_to_square') else ()))
    side = max(sides, default=0)
    if (len(pads) > 1 or len(sides) != 1 or side < max(scale) or side % divisor
            or pad.get('padding_mode', 'constant') != 'constant'):
        raise UserError(
            f'the test pipeline pads images by {pads}, so the size of the input is not one '
            f'square of at least {max(scale)} pixels and a multiple of '
            f'model.data_preprocessor.pad_size_divisor, {divisor}: pad to such a size with a '
            'constant, or leave Pad out')
    value = pad.get('pad_val', 0)
    value = value.get('img', 0) if isinstance(value, Mapping) else value
    return side, (value,) * 3 if isinstance(value, int) else tuple(value)


def _test_transforms(cfg: Config) -> tuple[Mapping[str, Any], bool]:
    """The Resize of the test pipeline, and whether images are loaded as float32."""
    pipeline: Sequence[Mapping[str, Any]] = get_test_pipeline_cfg(cfg)
    resizes = [step for step in pipeline if step['type'].split('.')[-1] == 'Resize']
    if (len(resizes) != 1 or not resizes[0].get('keep_ratio') or 'scale' not in resizes[0]
            or resizes[0].get('interpolation', 'bilinear') != 'bilinear'):
        raise UserError(
            'the test pipeline must hold one Resize with a scale, keep_ratio=True and bilinear '
            f"interpolation to be exported, but has {resizes or 'none'}: change the pipeline of "
            'test_dataloader.dataset')
    return resizes[0], any(step.get('to_float32', False) for step in pipeline)
