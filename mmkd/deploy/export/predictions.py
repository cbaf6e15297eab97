"""Compare an exported dense detector or DETR with MMDetection's own ``predict``."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmkd.deploy.device.metadata import ModelMetadata
from mmkd.deploy.device.nms import Nms
from mmkd.deploy.device.runtime import Detections
from mmkd.deploy.export.agreement import FLOAT32, Agreement, MismatchError, Tolerance, describe
from mmkd.deploy.export.two_stage_candidates import two_stage_candidates

__all__ = ['check_predictions', 'compare_predictions', 'random_sizes', 'samples_of_sizes']

_NOTHING = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


def random_sizes(batch: int, whole: Sequence[int],
                 metadata: ModelMetadata) -> list[tuple[int, int]]:
    """Height and width of each random image, where padding makes a difference less than all."""
    height, width = whole
    smaller = metadata.takes_sizes or (metadata.nms is not None and metadata.nms.clip)
    return [(height - step * height // 8, width - step * width // 4)
            for step in (index % 3 * smaller for index in range(batch))]


def samples_of_sizes(sizes: Sequence[tuple[int, int]],
                     whole: tuple[int, int]) -> list[DetDataSample]:
    """What ``predict`` must know of images that were not scaled but padded to ``whole``.

    Args:
        sizes: Height and width of each image.
        whole: Those of the input.
    """
    return [DetDataSample(metainfo=dict(
        img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0), batch_input_shape=whole,
        pad_shape=whole)) for size in sizes]


@torch.no_grad()
def compare_predictions(outputs: Sequence[np.ndarray], model: nn.Module, inputs: Tensor,
                        samples: Sequence[DetDataSample], nms: Nms | None,
                        tolerance: Tolerance) -> Agreement:
    """Compare what an exported model returns for a batch, after NMS, with ``model.predict``.

    Args:
        outputs: Boxes ``(N, K, 4)`` in pixels of the images, scores and labels ``(N, K)``.
        model: The PyTorch detector.
        inputs: ``(N, 3, H, W)`` float32.
        samples: What belongs to the inputs; left as they are.
        nms: Of the exported model, None if it needs none.
        tolerance: In pixels of the images.

    Raises:
        MismatchError: If they differ.
    """
    samples = copy.deepcopy(list(samples))
    expected = [_detections(sample.pred_instances) for sample in model.predict(inputs, samples)]
    doubtful = [_NOTHING] * len(samples)
    if nms is None:
        candidates = expected
    elif hasattr(model, 'roi_head'):
        candidates, doubtful = two_stage_candidates(model, inputs, samples, nms, tolerance)
    else:
        candidates = _candidates(model, inputs, samples, nms, tolerance)
    agreement = Agreement()
    for *one, sample, theirs, all_of_theirs, unsure in zip(*outputs, samples, expected, candidates,
                                                           doubtful, strict=True):
        ours = Detections(*(nms.detections(*one, sample.ori_shape) if nms else one))
        agreement.add(check_predictions(ours, theirs, all_of_theirs, nms, tolerance, unsure))
    return agreement


def _detections(instances: InstanceData) -> Detections:
    return Detections(*(values.numpy() for values in
                        (instances.bboxes, instances.scores, instances.labels)))


def _candidates(model: nn.Module, inputs: Tensor, samples: Sequence[DetDataSample], nms: Nms,
                tolerance: Tolerance) -> list[Detections]:
    """PyTorch's boxes before NMS, and those that fail a limit by no more than the tolerance."""
    cfg = copy.deepcopy(model.bbox_head.test_cfg)
    cfg.update(score_thr=max(nms.score_thr - tolerance.score, 0), nms_pre=10**9, conf_thr=-1)
    found = model.bbox_head.predict_by_feat(
        *model.bbox_head(model.extract_feat(inputs)), cfg=cfg, rescale=True, with_nms=False,
        batch_img_metas=[sample.metainfo for sample in samples])
    return [_detections(instances) for instances in found]


def check_predictions(found: Detections, expected: Detections, candidates: Detections,
                      nms: Nms | None = None, tolerance: Tolerance = FLOAT32,
                      doubtful: Detections = _NOTHING) -> Agreement:
    """Compare the exported model's detections of one image with PyTorch's.

    Order is of no account. A detection that one of the two lacks is a difference, unless rounding
    decides: it scores no more, but for the tolerance, than the last detection or the threshold
    that the other goes down to; or NMS let another box pass, which scores as much or more and
    overlaps it by the threshold of NMS, both but for the tolerance; or it is one of ``doubtful``.
    The exported model's must still be among PyTorch's boxes before NMS.

    Args:
        found: What the exported model detects.
        expected: What PyTorch does.
        candidates: PyTorch's boxes before NMS.
        nms: Of the exported model, None if it needs none.
        tolerance: How far apart the two may be.
        doubtful: Those of ``candidates`` of which rounding decides before NMS whether they are
            there.

    Raises:
        MismatchError: If they differ.
    """
    partners = _partners(found, expected, tolerance)
    known = _partners(found, candidates, tolerance)
    agreement = Agreement(inputs=1)

    def may_be_absent(one: Detections, others: Detections) -> bool:
        return (_decided_by_rounding(one, others, nms, tolerance)
                or bool(_partners(one, doubtful, tolerance)))

    for index, partner in partners.items():
        agreement.boxes += 1
        agreement.box_difference = max(agreement.box_difference, float(
            np.abs(found.boxes[index] - expected.boxes[partner]).max()))
        agreement.score_difference = max(agreement.score_difference, float(
            abs(found.scores[index] - expected.scores[partner])))
    for index in sorted(set(range(len(found.scores))) - set(partners)):
        one = _only(found, index)
        if index not in known or not may_be_absent(one, expected):
            raise MismatchError(f'PyTorch has no such detection: {_describe(one)}')
    for index in sorted(set(range(len(expected.scores))) - set(partners.values())):
        one = _only(expected, index)
        if not may_be_absent(one, found):
            raise MismatchError(f'a detection of PyTorch is missing: {_describe(one)}')
    return agreement


def _only(detections: Detections, index: int) -> Detections:
    return Detections(*(part[index:index + 1] for part in detections))


def _describe(one: Detections) -> str:
    return describe(one.labels[0], one.scores[0], one.boxes[0])


def _partners(found: Detections, expected: Detections, tolerance: Tolerance) -> dict[int, int]:
    """For each detection that agrees with one of ``expected`` its number there, none twice."""
    partners: dict[int, int] = {}
    free = np.ones(len(expected.scores), bool)
    for index, (box, score, label) in enumerate(zip(*found, strict=True)):
        differences = np.abs(expected.boxes - box).max(axis=1, initial=0)
        allowed = tolerance.box + tolerance.relative_box * np.abs(box).max()
        near = np.flatnonzero(free & (expected.labels == label) & (differences <= allowed)
                              & (np.abs(expected.scores - score) <= tolerance.score))
        if len(near):
            partners[index] = int(near[np.argmin(differences[near])])
            free[partners[index]] = False
    return partners


def _decided_by_rounding(one: Detections, others: Detections, nms: Nms | None,
                         tolerance: Tolerance) -> bool:
    """Whether a detection may be absent from ``others``, see :func:`check_predictions`."""
    score = one.scores[0] - tolerance.score
    limit = nms.max_per_img if nms else len(others.scores)
    if limit and len(others.scores) == limit and score <= others.scores.min():
        return True
    if nms is None:
        return False
    sides = one.boxes[0, 2:] - one.boxes[0, :2]
    if score <= nms.score_thr or (sides <= nms.min_size + 2 * tolerance.box).any():
        return True
    rivals = (others.scores >= score) & ((others.labels == one.labels[0]) | (not nms.class_aware))
    return bool((_largest_iou(one.boxes[0], others.boxes[rivals], tolerance)
                 >= nms.iou_threshold).any())


def _largest_iou(box: np.ndarray, others: np.ndarray, tolerance: Tolerance) -> np.ndarray:
    """What the IoU of a box with others may be if each is off by the tolerance."""
    reach = tolerance.box + tolerance.relative_box * np.abs(box).max()
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]) + 2 * reach
    common = sides.clip(min=0).prod(1)
    areas = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1)
    return common / np.maximum(areas - common, 1e-12)
