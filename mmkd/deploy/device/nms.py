"""From a dense detector's candidates to its detections, in NumPy: no torch, no mmengine."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

__all__ = ['Nms', 'greedy_nms']


def greedy_nms(boxes: np.ndarray, scores: np.ndarray, iou_threshold: float,
               limit: int = 0) -> np.ndarray:
    """Keep the best boxes, dropping those that overlap a better one.

    The arithmetic is that of :func:`mmkd.ops.nms.nms`, in the type of ``boxes``.

    Args:
        boxes: ``(N, 4)`` float, ``(x1, y1, x2, y2)``.
        scores: ``(N,)`` float.
        iou_threshold: A box is dropped if its intersection over union with a kept box is larger.
        limit: Stop after this many; 0 for all.

    Returns:
        ``(K,)`` int64 indices of the kept boxes, best score first.
    """
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    left = np.argsort(-scores, kind='stable')
    kept: list[int] = []
    while len(left) and not (limit and len(kept) == limit):
        best, rest = left[0], left[1:]
        kept.append(best)
        sides = (np.minimum(boxes[best, 2:], boxes[rest, 2:])
                 - np.maximum(boxes[best, :2], boxes[rest, :2]))
        common = sides.clip(min=0).prod(1)
        left = rest[common <= iou_threshold * (areas[best] + areas[rest] - common)]
    return np.array(kept, np.int64)


@dataclass(frozen=True)
class Nms:
    """How the candidates of a dense detector become its detections: what ``test_cfg`` says.

    Args:
        iou_threshold: Of two boxes that overlap by more, the one with the lower score is dropped.
        class_aware: Whether only boxes of one class compete.
        max_per_img: How many detections are left at most, 0 for all.
        score_thr: Candidates must score more in their class. The exported graph has seen to it
            (before centerness multiplies the score) by setting the other scores to 0.
        min_size: Boxes must be wider and higher in pixels of the image; below 0 for any size.
        clip: Whether boxes are clipped to the image.
        split: From so many candidates on each class is treated by itself.
    """

    iou_threshold: float
    class_aware: bool
    max_per_img: int
    score_thr: float
    min_size: float = -1.0
    clip: bool = True
    split: int = 10000

    @classmethod
    def from_json(cls, value: Any) -> 'Nms':
        """Read what a model's metadata holds.

        Raises:
            ValueError: If it is not what mmkd writes.
        """
        kinds = {field.name: field.type for field in fields(cls)}
        allowed = {float: (int, float), int: int, bool: bool}
        if (not isinstance(value, Mapping) or set(value) != set(kinds)
                or any(not isinstance(value[name], allowed[kind])
                       or isinstance(value[name], bool) != (kind is bool)
                       for name, kind in kinds.items())):
            raise ValueError(value)
        return cls(**value)

    def detections(self, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray,
                   size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the detections among the candidates of one image, best score first.

        They are those of MMDetection's ``predict``, whose order of steps this follows.

        Args:
            boxes: ``(K, 4)`` float32 in pixels of the image.
            scores: ``(K,)``; 0 means 'nothing'.
            labels: ``(K,)``.
            size: Height and width of the image.

        Returns:
            boxes, scores and labels of what is left.
        """
        height, width = size
        if self.clip:
            boxes = boxes.clip(0, np.array((width, height, width, height), boxes.dtype))
        found = scores > 0
        if self.min_size >= 0:
            found &= (boxes[:, 2:] - boxes[:, :2] > self.min_size).all(1)
        boxes, scores, labels = boxes[found], scores[found], labels[found]
        kept = self._kept(boxes, scores, labels) if len(boxes) else slice(0)
        return boxes[kept], scores[kept], labels[kept]

    def _kept(self, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        if self.class_aware:
            # As mmcv's batched_nms moves the classes apart: boxes that reach far out of the image
            # at the top or on the left may meet those of another class there, too.
            apart = boxes + (labels.astype(boxes.dtype) * (boxes.max() + boxes.dtype.type(1))
                             )[:, None]
        else:
            apart = boxes
        if len(boxes) < self.split:
            return greedy_nms(apart, scores, self.iou_threshold, self.max_per_img)
        groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        kept = np.concatenate([own[greedy_nms(apart[own], scores[own], self.iou_threshold)]
                               for own in groups])
        kept = kept[np.argsort(-scores[kept], kind='stable')]
        return kept[:self.max_per_img] if self.max_per_img else kept
