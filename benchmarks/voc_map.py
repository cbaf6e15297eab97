"""Time mmkd's VOC average precision against MMDetection's ``eval_map``, side by side.

    python benchmarks/voc_map.py [--images 4952]

Both get the same per-image arrays of one drawn data set as large as the VOC2007 test set: 100
detections an image, 20 classes. ``eval_map`` runs with one worker process.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

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


def seconds(call: Callable[[], Any], repeat: int) -> tuple[float, Any]:
    """Return the shortest time of some calls, and what the last returned."""
    times = []
    for _ in range(repeat):
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

    from mmdet.evaluation.functional import eval_map
    theirs, (their_map, _) = seconds(
        lambda: eval_map(dets, anns, iou_thr=0.5, eval_mode='area', nproc=1, logger='silent',
                         use_legacy_coordinate=True), repeat=3)
    ours, results = seconds(
        lambda: voc_average_precision(detections, objects, CLASSES, iou_thr=0.5), repeat=3)
    our_map = mean_average_precision(result.ap_area for result in results)
    print(f'{images} images x {PER_IMAGE} detections, {CLASSES} classes')
    print(f'mmdet eval_map, one worker: {theirs:8.3f} s  mAP {their_map:.7f}')
    print(f'mmkd voc_average_precision: {ours:8.3f} s  mAP {our_map:.7f} (both rules)')
    print(f'ratio: {theirs / ours:.1f}')


if __name__ == '__main__':
    main()
