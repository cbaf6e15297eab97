"""VOC average precision: mmkd's vectorised form against MMDetection's ``eval_map``.

Both get the same per-image arrays of one drawn data set as large as the VOC2007 test set: 4952
images, 100 detections each, 20 classes. ``eval_map`` always passes its work to a pool, so it is
timed twice: with a pool of one worker, and with a stand-in that makes the same calls in this
process, without the cost of passing them on; seven rounds at most. The mAPs must agree to the
float32 in which ``eval_map`` keeps average precision.
"""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import replace
from unittest import mock

import numpy as np
from harness import Options, Result, compare
from mmdet.evaluation.functional import eval_map, mean_ap

from mmkd.evaluation.voc_map import (
    Detections,
    Objects,
    mean_average_precision,
    voc_average_precision,
)

CLASSES = 20
IMAGES = 4952
PER_IMAGE = 100


def measure(options: Options) -> Iterable[Result]:
    """Time ``eval_map`` in process and with a worker."""
    images = 20 if options.quick else IMAGES
    options = replace(options, rounds=min(options.rounds, 7))
    detections, objects = draw(images, np.random.default_rng(0))
    dets, anns = mmdet_format(detections, objects)

    def ours() -> float:
        results = voc_average_precision(detections, objects, CLASSES, iou_thr=0.5)
        return mean_average_precision(result.ap_area for result in results)

    def one_worker() -> float:
        return eval_map(dets, anns, iou_thr=0.5, eval_mode='area', nproc=1, logger='silent',
                        use_legacy_coordinate=True)[0]

    def in_process() -> float:
        with mock.patch.object(mean_ap, 'Pool', InProcess):
            return one_worker()

    difference = abs(ours() - in_process())
    assert difference < 1e-6, f'the mAPs differ by {difference}'
    for baseline, call in (('eval_map in process', in_process),
                           ('eval_map, one worker', one_worker)):
        yield from compare('voc_map', {baseline: call, f'mmkd, {images} images': ours}, baseline,
                           options)


class InProcess:
    """A ``multiprocessing.Pool`` without processes."""

    def __init__(self, processes: int) -> None:
        del processes

    def starmap(self, function: Callable, arguments: Iterable[tuple]) -> list:
        """Call the function with each tuple of arguments."""
        return list(itertools.starmap(function, arguments))

    def close(self) -> None:
        """Nothing is open."""


def draw(images: int, rng: np.random.Generator) -> tuple[list[Detections], list[Objects]]:
    """Draw objects, and detections of which about a third lie near an object."""
    detections, objects = [], []
    for _ in range(images):
        obj_boxes = _boxes(rng, rng.integers(1, 6))
        obj_labels = rng.integers(CLASSES, size=len(obj_boxes))
        boxes, labels = _boxes(rng, PER_IMAGE), rng.integers(CLASSES, size=PER_IMAGE)
        near = rng.integers(len(obj_boxes), size=PER_IMAGE // 3)
        boxes[:len(near)] = obj_boxes[near] + rng.normal(scale=12, size=(len(near), 4))
        labels[:len(near)] = obj_labels[near]
        detections.append(Detections(boxes.astype(np.float32),
                                     rng.random(PER_IMAGE).astype(np.float32), labels))
        objects.append(Objects(obj_boxes.round().astype(np.float32), obj_labels,
                               rng.random(len(obj_boxes)) < 0.2))
    return detections, objects


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    corner, size = rng.uniform(0, 300, (count, 2)), rng.uniform(20, 200, (count, 2))
    return np.hstack([corner, corner + size])


def mmdet_format(detections: list[Detections], objects: list[Objects]) -> tuple[list, list]:
    """Turn both into what ``eval_map`` takes, as MMDetection's VOCMetric does."""
    dets = [[np.column_stack([d.boxes, d.scores])[d.labels == c] for c in range(CLASSES)]
            for d in detections]
    anns = [dict(bboxes=o.boxes[~o.difficult], labels=o.labels[~o.difficult],
                 bboxes_ignore=o.boxes[o.difficult], labels_ignore=o.labels[o.difficult])
            for o in objects]
    return dets, anns
