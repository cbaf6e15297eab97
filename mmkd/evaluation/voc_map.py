"""Average precision by the rules of the PASCAL VOC development kit, in vectorised NumPy.

For one class, over all images of a data set:

1. Detections are taken by decreasing score. Equal scores keep the order in which they came: by
   image, and within an image as the detector listed them.
2. Each is compared with the objects of its class in its image and belongs to the one of highest
   IoU (the first of equals). A box includes its last pixel: its width is ``x2 - x1 + 1``.
3. With an IoU below the threshold it is a miss. Otherwise it is neither hit nor miss if its object
   is `difficult`, a hit if it is the first that belongs to the object, else a miss. A second
   detection of an object stays a miss where it also overlaps another object that is still free.
4. Recall is the share of the objects that are not `difficult`.

Rule 3 lets the greedy matching be computed at once: what a detection belongs to does not depend on
the detections before it, and the hits are the first detections of their objects.

M. Everingham, L. Van Gool, C. K. I. Williams, J. Winn, A. Zisserman, "The PASCAL Visual Object
Classes (VOC) Challenge", IJCV 88, 2010, and the development kits of 2007 and 2012.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = [
    'ClassResult',
    'Detections',
    'Objects',
    'average_precision_11points',
    'average_precision_area',
    'mean_average_precision',
    'voc_average_precision',
]


@dataclass(frozen=True)
class Detections:
    """What a detector found in one image.

    Args:
        boxes: ``(N, 4)`` float, ``(x1, y1, x2, y2)`` in pixels of the original image.
        scores: ``(N,)`` float, larger is surer.
        labels: ``(N,)`` integer class indices.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Objects:
    """What there is to be found in one image.

    Args:
        boxes: ``(M, 4)`` float, ``(x1, y1, x2, y2)`` in pixels of the original image.
        labels: ``(M,)`` integer class indices.
        difficult: ``(M,)`` bool, objects that one need not find.
    """

    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray


@dataclass(frozen=True)
class ClassResult:
    """The precision/recall curve of one class and what follows from it.

    Args:
        num_objects: objects that are not `difficult`.
        recall: ``(N,)`` float64, after each detection in order of score; 0 without objects.
        precision: ``(N,)`` float64, likewise; 0 as long as there is neither hit nor miss.
        ap_11points: average precision of VOC2007; nan without objects.
        ap_area: average precision of VOC2010 and later; nan without objects.
    """

    num_objects: int
    recall: np.ndarray
    precision: np.ndarray
    ap_11points: float
    ap_area: float

    @property
    def num_detections(self) -> int:
        """Detections of the class, those of `difficult` objects included."""
        return len(self.recall)


def voc_average_precision(detections: Sequence[Detections], objects: Sequence[Objects],
                          num_classes: int, iou_thr: float = 0.5) -> list[ClassResult]:
    """Compute precision, recall and average precision of each class by the rules above.

    Args:
        detections: one entry for each image.
        objects: one entry for each image, in the same order.
        num_classes: how many classes there are.
        iou_thr: the least intersection over union of a hit.

    Returns:
        One result for each class.

    Raises:
        ValueError: the number of images differs between the two lists, or a label is not below
            ``num_classes``.
    """
    if len(detections) != len(objects):
        raise ValueError(f'There are detections for {len(detections)} images and objects for '
                         f'{len(objects)}: give one entry of each for every image.')
    det_boxes = _concatenate([d.boxes for d in detections]).reshape(-1, 4)
    obj_boxes = _concatenate([o.boxes for o in objects]).reshape(-1, 4)
    det_labels, det_cells = _labels_and_cells([d.labels for d in detections], num_classes)
    obj_labels, obj_cells = _labels_and_cells([o.labels for o in objects], num_classes)
    difficult = _concatenate([o.difficult for o in objects]).astype(bool)
    scores = _concatenate([d.scores for d in detections])

    best, iou = _best_objects(det_cells, det_boxes, obj_cells, obj_boxes,
                              num_cells=len(objects) * num_classes)
    best[iou < iou_thr] = -1
    num_objects = np.bincount(obj_labels[~difficult], minlength=num_classes)
    results = []
    for dets, num in zip(_split_by_label(det_labels, num_classes), num_objects, strict=True):
        by_score = dets[_stable_decreasing_order(scores[dets])]
        results.append(_class_result(best[by_score], difficult, int(num)))
    return results


def average_precision_11points(recall: np.ndarray, precision: np.ndarray) -> float:
    """Mean over ``t = 0, 0.1, …, 1`` of the highest precision at a recall of at least ``t``.

    The rule of VOC2007. The thresholds are the floating-point multiples ``k * 0.1``, as in
    MMDetection: three of them (0.3, 0.6 and 0.7) lie one rounding error above the decimal, so that
    a recall of exactly 3/10 does not reach 0.3.

    Args:
        recall: ``(N,)`` float64, not decreasing.
        precision: ``(N,)`` float64.
    """
    reached = np.searchsorted(recall, np.arange(11) * 0.1)
    return float(np.append(_envelope(precision), 0.0)[reached].mean())


def average_precision_area(recall: np.ndarray, precision: np.ndarray) -> float:
    """Area under the precision/recall curve after making precision fall monotonically.

    ``sum_i (r_i - r_{i-1}) max_{j >= i} p_j`` with ``r_0 = 0``, the rule since VOC2010.

    Args:
        recall: ``(N,)`` float64, not decreasing.
        precision: ``(N,)`` float64.
    """
    return float(np.diff(recall, prepend=0.0) @ _envelope(precision))


def mean_average_precision(values: Iterable[float]) -> float:
    """Mean of the average precisions that are not nan; 0 if there is none."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else 0.0


def _class_result(best: np.ndarray, difficult: np.ndarray, num_objects: int) -> ClassResult:
    """Judge the detections of a class, given the object of each by decreasing score, -1 if none."""
    # The entry appended is what the index -1 finds.
    ignored = np.append(difficult, False)[best]
    judged = np.flatnonzero((best >= 0) & ~ignored)
    hit = np.zeros(len(best), dtype=bool)
    hit[judged[np.unique(best[judged], return_index=True)[1]]] = True
    hits, misses = np.cumsum(hit), np.cumsum(~hit & ~ignored)
    recall = hits / max(num_objects, 1)
    precision = hits / np.maximum(hits + misses, 1)
    if num_objects == 0:
        return ClassResult(0, recall, precision, float('nan'), float('nan'))
    return ClassResult(num_objects, recall, precision,
                       average_precision_11points(recall, precision),
                       average_precision_area(recall, precision))


def _envelope(precision: np.ndarray) -> np.ndarray:
    return np.maximum.accumulate(precision[::-1])[::-1]


def _concatenate(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(0)


def _labels_and_cells(labels: Sequence[np.ndarray],
                      num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the label and the cell of each box; a cell is one class in one image."""
    flat = _concatenate(labels).astype(np.int64)
    if len(flat) and not 0 <= flat.min() <= flat.max() < num_classes:
        raise ValueError(f'Labels run from {flat.min()} to {flat.max()}: with {num_classes} '
                         f'classes they must be from 0 to {num_classes - 1}.')
    counts = np.array([len(image) for image in labels], dtype=np.int64)
    return flat, np.repeat(np.arange(len(labels)), counts) * num_classes + flat


def _split_by_label(labels: np.ndarray, num_classes: int) -> list[np.ndarray]:
    """Return the indices of each label, in order."""
    # NumPy sorts small integers by radix, in a tenth of the time.
    by_label = np.argsort(labels.astype(np.min_scalar_type(num_classes)), kind='stable')
    return np.split(by_label, np.cumsum(np.bincount(labels, minlength=num_classes))[:-1])


def _stable_decreasing_order(scores: np.ndarray) -> np.ndarray:
    """Return the indices that sort the scores, the largest first, equal ones in their order."""
    # NumPy sorts floats unstably, and then integers that hold a score's rank and its index, in
    # half the time of one stable sort of floats.
    order = np.argsort(-scores)
    rank = np.cumsum(np.diff(scores[order], prepend=np.inf) != 0)
    return np.sort(rank * len(scores) + order) % max(len(scores), 1)


def _best_objects(det_cells: np.ndarray, det_boxes: np.ndarray, obj_cells: np.ndarray,
                  obj_boxes: np.ndarray, num_cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the object of highest IoU for each detection among those of its cell.

    The k-th objects of all cells are compared at once, for growing k, which takes memory for the
    detections only, however crowded the images are.

    Args:
        det_cells: ``(N,)`` int64.
        det_boxes: ``(N, 4)`` float.
        obj_cells: ``(M,)`` int64.
        obj_boxes: ``(M, 4)`` float.
        num_cells: all cells are below.

    Returns:
        ``(N,)`` int64 index of the object, the first of equals, -1 where nothing overlaps, and
        ``(N,)`` float64 its IoU.
    """
    by_cell = np.argsort(obj_cells, kind='stable')
    counts = np.bincount(obj_cells, minlength=num_cells)
    first = np.cumsum(counts) - counts
    best = np.full(len(det_cells), -1)
    best_iou = np.zeros(len(det_cells))
    dets = np.flatnonzero(counts[det_cells])
    for k in range(counts.max(initial=0)):
        dets = dets[counts[det_cells[dets]] > k]
        objs = by_cell[first[det_cells[dets]] + k]
        iou = _paired_iou(det_boxes[dets].astype(np.float64), obj_boxes[objs].astype(np.float64))
        better = iou > best_iou[dets]
        best[dets[better]] = objs[better]
        best_iou[dets[better]] = iou[better]
    return best, best_iou


def _paired_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of ``(N, 4)`` boxes with ``(N, 4)`` boxes, one by one, the last pixel included."""
    shared = np.hstack([np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])])
    overlap = _width_times_height(shared)
    union = _width_times_height(a) + _width_times_height(b) - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=overlap > 0)


def _width_times_height(boxes: np.ndarray) -> np.ndarray:
    width, height = boxes[:, 2] - boxes[:, 0] + 1, boxes[:, 3] - boxes[:, 1] + 1
    return np.maximum(width, 0) * np.maximum(height, 0)
