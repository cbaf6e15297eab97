"""The score from which on a box is taken for a label, chosen on labelled images."""

from collections.abc import Sequence

import numpy as np

from mmkd.evaluation.voc_map import Detections, Objects, voc_average_precision

__all__ = ['best_threshold']

TRIED = np.arange(5, 100) / 100


def best_threshold(found: Sequence[Detections], objects: Sequence[Objects], num_classes: int,
                   iou_thr: float = 0.5) -> tuple[float, float]:
    """Return the threshold with the best F1 over all classes together, and that F1.

    One threshold for all classes: of a rare class there are few validation objects, and a threshold
    that was fitted to ten of them says little about the next ten.

    Args:
        found: in each image, by decreasing or any other score.
        objects: in the same images.
        num_classes: how many classes there are.
        iou_thr: the least intersection over union of a hit.

    Returns:
        one of 0.05, 0.06, ..., 0.99, the lowest of equal ones; and the F1, 0 if nothing is found.
    """
    scores = np.concatenate([one.scores for one in found])
    labels = np.concatenate([one.labels for one in found])
    hits, misses, total = np.zeros(len(TRIED)), np.zeros(len(TRIED)), 0
    for label, result in enumerate(voc_average_precision(found, objects, num_classes, iou_thr)):
        decreasing = -np.sort(-scores[labels == label])
        count = np.searchsorted(-decreasing, -TRIED, side='right')
        recall = np.append(0, result.recall)[count]
        precision = np.append(0, result.precision)[count]
        of_class = recall * max(result.num_objects, 1)
        hits += of_class
        misses += np.where(of_class > 0, of_class / np.where(of_class > 0, precision, 1) - of_class,
                           count)
        total += result.num_objects
    f1 = 2 * hits / np.maximum(hits + misses + total, 1)
    best = int(f1.argmax())
    return float(TRIED[best]), float(f1[best])
