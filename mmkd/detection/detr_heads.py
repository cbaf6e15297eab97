"""What the DETRs of MMDetection have in common, and how each family does it.

A detector belongs to a family if it is of its very class. DDQ belongs to none: from layer to layer
it leaves queries out that say the same, so that its sets differ in size from image to image.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from mmdet.models.detectors import DABDETR, DETR, DINO, ConditionalDETR, DeformableDETR
from mmdet.models.layers.transformer import inverse_sigmoid
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

__all__ = ['FAMILIES', 'Queries', 'decoded', 'decoder_inputs', 'detection_loss', 'hungarian',
           'is_detr', 'matching', 'queries_of', 'query_kind', 'random_queries']

FAMILIES = (DETR, ConditionalDETR, DABDETR, DeformableDETR, DINO)


class Queries(NamedTuple):
    """What a decoder is asked; a family has one of the two, or both (DINO)."""

    embedding: Tensor | None
    """``(N, D)``, learnt, the same for all images."""
    boxes: Tensor | None
    """``(B, N, 4)``, where to look in each image: centre, width and height in fractions of it."""


def is_detr(model: nn.Module) -> bool:
    """Whether a detector is of one of the families."""
    return type(model) in FAMILIES


def query_kind(model: nn.Module) -> tuple[str, int, bool]:
    """Return what must be the same for two decoders to take the same queries."""
    embedding = getattr(model, 'query_embedding', None)
    width = 0 if embedding is None else embedding.embedding_dim
    return type(model).__name__, width, getattr(model, 'as_two_stage', False)


def matching(model: nn.Module, layers: Tensor) -> list[Tensor]:
    """Return ``(L, B, Q, K)`` layer by layer, without the denoising queries of DINO's training."""
    if isinstance(model, DINO):
        layers = layers[:, :, -model.num_queries:]
    return list(layers.unbind())


def hungarian(costs: Tensor) -> Tensor:
    """Return the row of each column of ``(B, N, M)``, ``M <= N``, with the smallest sum.

    A cost that is no number counts as 0: the loss shows it, and the run's guard stops there.
    """
    rows = []
    for cost in costs.nan_to_num().cpu().numpy():
        rows.append(torch.as_tensor(linear_sum_assignment(cost.T)[1], device=costs.device))
    return torch.stack(rows)


def decoder_inputs(model: nn.Module, features: Sequence[Tensor], samples: Sequence[Any],
                   memory: Tensor) -> dict[str, Any]:
    """Return what a decoder needs beside its queries.

    Args:
        model: of one of the families.
        features: of its neck, for the sizes of levels.
        samples: of the batch, for the padding.
        memory: ``(B, cells, D)``, what its encoder gave.
    """
    return {**model.pre_transformer(tuple(features), samples)[1], 'memory': memory}


def queries_of(model: nn.Module, inputs: Mapping[str, Any]) -> Queries:
    """Return a detector's own queries.

    Args:
        model: in eval mode, in which DINO has no denoising queries.
        inputs: from :func:`decoder_inputs`.
    """
    embedding = getattr(model, 'query_embedding', None)
    boxes = None
    if getattr(model, 'as_two_stage', False):
        known = {name: inputs[name] for name in ('memory', 'memory_mask', 'spatial_shapes')}
        boxes = model.pre_decoder(**known)[0]['reference_points']
    return Queries(None if embedding is None else embedding.weight, boxes)


def random_queries(like: Queries, count: int) -> Queries:
    """Draw queries of the same kind, as new embeddings are: from a normal distribution.

    Boxes are the sigmoids of such numbers.
    """
    embedding, boxes = like
    if embedding is not None:
        embedding = torch.randn(count, embedding.shape[1], device=embedding.device)
    if boxes is not None:
        drawn = torch.randn(count, 4, device=boxes.device).sigmoid()
        boxes = drawn.expand(len(boxes), -1, -1)
    return Queries(embedding, boxes)


def decoded(model: nn.Module, inputs: Mapping[str, Any], queries: Queries
            ) -> tuple[Tensor, Tensor]:
    """Return what a detector says at queries: ``(L, B, N, C)`` logits, ``(L, B, N, 4)`` boxes."""
    asked = _asked(model, queries, len(inputs['memory']))
    return model.bbox_head(**model.forward_decoder(**inputs, **asked))[:2]


def _asked(model: nn.Module, queries: Queries, images: int) -> dict[str, Tensor]:
    """Return queries as the detector's ``forward_decoder`` takes them."""
    embedding, boxes = queries
    if embedding is not None:
        embedding = embedding.expand(images, -1, -1)
    if isinstance(model, DINO):
        return dict(query=embedding, reference_points=boxes)
    if not isinstance(model, DeformableDETR):
        content = embedding.new_zeros(images, embedding.shape[1], model.embed_dims)
        return dict(query=content, query_pos=embedding)
    if boxes is None:
        position, content = embedding.chunk(2, -1)
        boxes = model.reference_points_fc(position).sigmoid()
    else:
        coded = model.get_proposal_pos_embed(inverse_sigmoid(boxes))
        position, content = model.pos_trans_norm(model.pos_trans_fc(coded)).chunk(2, -1)
    return dict(query=content, query_pos=position, reference_points=boxes)


def detection_loss(head: nn.Module, samples: Sequence[Any]
                   ) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Return the head's own loss of one layer, under the assignment of other predictions.

    The function takes classes ``(B, N, C)`` and boxes ``(B, N, 4)``, and the classes and boxes by
    which the head's own assigner finds out which query has which object.
    """
    metas = [sample.metainfo for sample in samples]
    truths = [sample.gt_instances for sample in samples]

    def loss(classes: Tensor, boxes: Tensor, theirs: Tensor, places: Tensor) -> Tensor:
        other = copy.copy(head)  # shares all modules, so that the student's assigner stays
        other.assigner = _AssignedBy(head.assigner, [
            InstanceData(scores=cls, bboxes=_in_pixels(box, meta['img_shape']))
            for cls, box, meta in zip(theirs, places, metas, strict=True)])
        return sum(other.loss_by_feat_single(classes, boxes, truths, metas))

    return loss


def _in_pixels(boxes: Tensor, shape: Sequence[int]) -> Tensor:
    height, width = shape[:2]
    return bbox_cxcywh_to_xyxy(boxes) * boxes.new_tensor([width, height, width, height])


class _AssignedBy:
    """An assigner that looks at other predictions than it is given, image by image."""

    def __init__(self, assigner: Any, predictions: Sequence[InstanceData]) -> None:
        self._assigner = assigner
        self._predictions = iter(predictions)

    def assign(self, pred_instances: InstanceData, gt_instances: InstanceData,
               img_meta: dict) -> Any:
        return self._assigner.assign(next(self._predictions), gt_instances, img_meta)
