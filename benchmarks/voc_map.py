"""Time mmkd's VOC average precision against MMDetection's ``eval_map``, side by side.

    python benchmarks/voc_map.py [--images 4952]

Both get the same per-image arrays of one drawn data set as large as the VOC2007 test set: 100
detections an image, 20 classes. ``eval_map`` always starts a pool, so it is timed twice: with a
pool of one worker, and with a stand-in that runs the same calls in this process, without the cost
of passing them on. The ratios are of the best of five calls each.
"""

import argparse
import itertools
import time
from collections.abc import Callable, Iterable
from typing import Any
from unittest import mock

import numpy as np

import mmkd  # noqa: F401
from mmkd.evaluation.voc_map import (
    Detections,
    Objects,
    mean_average_precision,
    voc_average_precision,
)

CLASSES = 20
PER_IMAGE = 100
REPEAT = 5


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


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the shortest time of some calls, and what the last returned."""
    times = []
    for _ in range(REPEAT):
        start = time.perf_counter()
        value = call()
        times.append(time.perf_counter() - start)
    return min(times), value


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--images', type=int, default=4952, help='images to draw')
    images = parser.parse_args().images
    detections, objects = draw(images, np.random.default_rng(0))
    dets, anns = mmdet_format(detections, objects)

    from mmdet.evaluation.functional import eval_map, mean_ap

    def theirs() -> float:
        return eval_map(dets, anns, iou_thr=0.5, eval_mode='area', nproc=1, logger='silent',
                        use_legacy_coordinate=True)[0]

    def ours() -> float:
        results = voc_average_precision(detections, objects, CLASSES, iou_thr=0.5)
        return mean_average_precision(result.ap_area for result in results)

    our_seconds, our_map = seconds(ours)
    worker_seconds, their_map = seconds(theirs)
    with mock.patch.object(mean_ap, 'Pool', InProcess):
        process_seconds, _ = seconds(theirs)
    print(f'{images} images x {PER_IMAGE} detections, {CLASSES} classes')
    print(f'mAP: mmkd {our_map:.7f}, mmdet {their_map:.7f}')
    print(f'mmkd voc_average_precision   {our_seconds:8.3f} s')
    for name, value in (('in process', process_seconds), ('one worker', worker_seconds)):
        print(f'mmdet eval_map, {name}   {value:8.3f} s  ratio {value / our_seconds:.1f}')


if __name__ == '__main__':
    main()
