"""A DETR as one function from image to detections."""

from types import EllipsisType

import numpy as np
import torch
from mmdet.models.dense_heads import DeformableDETRHead, DETRHead
from mmdet.models.detectors import DETR, DINO, DeformableDETR
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor, nn

from mmkd.errors import UserError

__all__ = ['ExportableDETR', 'detr_graph', 'whole_sizes']


class ExportableDETR(nn.Module):
    """A DETR, Conditional DETR or DAB-DETR from the normalised image to boxes, in plain tensors.

    Boxes need no NMS. They are shares of the image and the padding around it is left out of the
    attention, hence the second input. The parts are the detector's own, shared and not copied; it
    must be in evaluation mode.

    Source: N. Carion et al., End-to-End Object Detection with Transformers, ECCV 2020, arXiv
    2005.12872.

    Args:
        model: An MMDetection ``DETR`` or one of the detectors that prepare their inputs like it.

    Raises:
        UserError: If it is to return more boxes than it has queries.
    """

    input_names = ('image', 'sizes')
    output_names = ('boxes', 'scores', 'labels')
    nms = None

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        head = model.bbox_head
        self.count = int((head.test_cfg or {}).get('max_per_img', model.num_queries))
        choices = model.num_queries * (head.num_classes if head.loss_cls.use_sigmoid else 1)
        if not 0 < self.count <= choices:
            raise UserError(f'test_cfg.max_per_img of the head is {self.count}, but the model has '
                            f'{choices} results to choose from: set it to 1 to {choices}')

    def forward(self, image: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Detect.

        Args:
            image: ``(N, 3, H, W)``, as the model's data preprocessor returns it.
            sizes: ``(N, 2)`` int64, height and width of each image without its padding, which is
                on the right and at the bottom; by default there is none.

        Returns:
            boxes ``(N, K, 4)`` float32, ``(x1, y1, x2, y2)`` in pixels of the input; scores
            ``(N, K)`` float32, descending; labels ``(N, K)`` int64.
        """
        sizes = whole_sizes(image) if sizes is None else sizes
        logits, boxes = (layers[-1] for layers in
                         self.model.bbox_head(**self._transformer(image, sizes)))
        scores, queries, labels = self._best(logits)
        boxes = boxes.gather(1, queries[..., None].expand(-1, -1, 4))
        scale = sizes.flip(1).repeat(1, 2)[:, None].to(boxes.dtype)
        corners = bbox_cxcywh_to_xyxy(boxes) * scale
        return torch.minimum(corners.clamp(min=0), scale), scores, labels

    def _transformer(self, image: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        """The inputs of the head: the steps of ``DetectionTransformer.forward_transformer``."""
        model = self.model
        feature = model.extract_feat(image)[-1]
        padding = _padding(sizes, image.shape[-2:], feature.shape[-2:])
        position = model.positional_encoding(padding).flatten(2).transpose(1, 2)
        padding = padding.flatten(1)
        encoded = model.forward_encoder(feature.flatten(2).transpose(1, 2), padding, position)
        decoder_inputs, head_inputs = model.pre_decoder(**encoded)
        decoded = model.forward_decoder(memory_mask=padding, memory_pos=position, **decoder_inputs)
        return head_inputs | decoded

    def _best(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The best scores of ``(N, Q, C)``, the queries and the classes they belong to."""
        if self.model.bbox_head.loss_cls.use_sigmoid:
            classes = logits.shape[2]
            scores, index = logits.sigmoid().flatten(1).topk(self.count)
            return scores, torch.div(index, classes, rounding_mode='floor'), index % classes
        scores, labels = logits.softmax(-1)[..., :-1].max(-1)
        scores, queries = scores.topk(self.count)
        return scores, queries, labels.gather(1, queries)


class _Shapes(list[tuple[int, int]]):
    """Height and width of each level as numbers, where MMDetection has them in a tensor.

    An exporter cannot read sizes out of a tensor. This has what MMDetection's encoder and mmcv's
    attention ask of one: its rows, a column for their check of the number of cells, and a column
    to compute with.
    """

    def __getitem__(self, key: tuple[slice | EllipsisType, int]) -> np.ndarray | Tensor:
        every, column = key
        values = [shape[column] for shape in self]
        return torch.tensor(values) if every is Ellipsis else np.array(values)


class _ExportableDeformableDETR(ExportableDETR):
    """A Deformable DETR or DINO: features of several levels, of which places are sampled.

    Source: X. Zhu et al., Deformable DETR, ICLR 2021, arXiv 2010.04159; H. Zhang et al., DINO, ICLR
    2023, arXiv 2203.03605.
    """

    def _transformer(self, image: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        model = self.model
        features = model.extract_feat(image)
        paddings = [_padding(sizes, image.shape[-2:], level.shape[-2:]) for level in features]
        positions = [model.positional_encoding(level).flatten(2).transpose(1, 2) + embedding
                     for level, embedding in zip(paddings, model.level_embed, strict=True)]
        # Where each level starts is asked for on a GPU alone.
        levels = dict(
            spatial_shapes=_Shapes(tuple(level.shape[-2:]) for level in features),
            level_start_index=None,
            valid_ratios=torch.stack([model.get_valid_ratio(level) for level in paddings], 1))
        padding = torch.cat([level.flatten(1) for level in paddings], 1)
        encoded = model.forward_encoder(
            torch.cat([level.flatten(2).transpose(1, 2) for level in features], 1), padding,
            torch.cat(positions, 1), **levels)
        inputs, head_inputs = model.pre_decoder(**encoded)
        if isinstance(model, DINO):
            # Its forward_decoder takes the len() of a tensor, which fixes the number of images.
            states, references = model.decoder(
                query=inputs['query'], value=inputs['memory'], key_padding_mask=padding,
                self_attn_mask=None, reference_points=inputs['reference_points'],
                reg_branches=model.bbox_head.reg_branches, **levels)
            return head_inputs | dict(hidden_states=states, references=references)
        return head_inputs | model.forward_decoder(memory_mask=padding, **levels, **inputs)


_ADAPTERS = {(DETR, DETRHead): ExportableDETR,
             (DeformableDETR, DeformableDETRHead): _ExportableDeformableDETR}


def whole_sizes(image: Tensor) -> Tensor:
    """The second input for images without padding, from the first, ``(N, 3, H, W)``."""
    return torch.tensor([image.shape[-2:]], device=image.device).expand(image.shape[0], 2)


def _padding(sizes: Tensor, whole: tuple[int, int], cells: tuple[int, int]) -> Tensor:
    """Which cells of a feature lie in the padding, ``(N, h, w)`` bool.

    They are those that ``F.interpolate`` picks out of a mask of the pixels, as ``DETR`` does.
    """
    outside = []
    for axis, (pixels, count) in enumerate(zip(whole, cells, strict=True)):
        places = np.floor(np.arange(count, dtype=np.float32) * np.float32(pixels / count))
        places = torch.tensor(places.astype(int).tolist(), device=sizes.device)
        outside.append(places >= sizes[:, axis:axis + 1])
    rows, columns = outside
    return rows[:, :, None] | columns[:, None, :]


def detr_graph(model: nn.Module) -> ExportableDETR | None:
    """Return a DETR as one function from image to detections.

    Returns:
        None if the model is another kind of detector.

    Raises:
        UserError: As :class:`ExportableDETR`.
    """
    head = getattr(model, 'bbox_head', None)
    for (kind, predicting), adapter in _ADAPTERS.items():
        if (getattr(type(model), 'pre_transformer', None) is kind.pre_transformer
                and all(getattr(type(head), name, None) is getattr(predicting, name)
                        for name in ('predict_by_feat', '_predict_by_feat_single'))):
            return adapter(model)
    return None
