"""The development kit's rules as plain loops over float64 numbers, and random data to judge."""

import numpy as np

from mmkd.evaluation.voc_map import Detections, Objects


def devkit(detections, objects, label, iou_thr=0.5):
    """Return the number of objects, recall, precision and the two average precisions of a class."""
    num_objects, verdicts = judge(detections, objects, label, iou_thr)
    hits, misses, recall, precision = 0, 0, [], []
    for verdict in verdicts:
        hits += verdict == 'hit'
        misses += verdict in ('duplicate', 'elsewhere')
        recall.append(hits / num_objects if num_objects else 0.0)
        precision.append(hits / (hits + misses) if hits + misses else 0.0)
    if num_objects == 0:
        return 0, recall, precision, float('nan'), float('nan')
    return num_objects, recall, precision, eleven_points(recall, precision), area(recall, precision)


def judge(detections, objects, label, iou_thr=0.5):
    """Return the number of objects of a class, and what each detection is, best score first."""
    found = [(float(score), i, [float(v) for v in box])
             for i, d in enumerate(detections)
             for box, score, c in zip(d.boxes, d.scores, d.labels, strict=True) if c == label]
    # Equal scores: the earlier image and, within it, the earlier detection goes first.
    found.sort(key=lambda entry: -entry[0])
    wanted = [[([float(v) for v in box], bool(hard))
               for box, c, hard in zip(o.boxes, o.labels, o.difficult, strict=True) if c == label]
              for o in objects]
    taken, verdicts = set(), []
    for _, i, box in found:
        best, best_iou = None, -1.0
        for j, (other, _) in enumerate(wanted[i]):
            value = iou(box, other)
            if value > best_iou:
                best, best_iou = j, value
        if best_iou < iou_thr:
            verdicts.append('elsewhere')
        elif wanted[i][best][1]:
            verdicts.append('difficult')
        elif (i, best) in taken:
            verdicts.append('duplicate')
        else:
            taken.add((i, best))
            verdicts.append('hit')
    return sum(not hard for image in wanted for _, hard in image), verdicts


def iou(a, b):
    """Intersection over union of two boxes whose last pixel belongs to them."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    union = ((a[2] - a[0] + 1) * (a[3] - a[1] + 1) + (b[2] - b[0] + 1) * (b[3] - b[1] + 1)
             - width * height)
    return width * height / union


def eleven_points(recall, precision):
    total = 0.0
    for k in range(11):
        total += max([p for r, p in zip(recall, precision, strict=True) if r >= k * 0.1],
                     default=0.0) / 11
    return total


def area(recall, precision):
    r, p = [0.0, *recall, 1.0], [0.0, *precision, 0.0]
    for i in range(len(p) - 2, -1, -1):
        p[i] = max(p[i], p[i + 1])
    return sum((r[i] - r[i - 1]) * p[i] for i in range(1, len(r)))


def draw(seed, images=5, classes=3, whole_pixels=True, tied_scores=False):
    """Small crowded images, some empty; whole pixels make equal and borderline IoUs common."""
    rng = np.random.default_rng(seed)

    def boxes(count):
        corner, size = rng.uniform(0, 12, (count, 2)), rng.uniform(0, 9, (count, 2))
        return np.hstack([corner, corner + size])

    # Every score is drawn once, unless ties are asked for.
    pool = rng.permutation(images * 12) / (images * 12)
    detections, objects = [], []
    for i in range(images):
        n, m = rng.integers(0, 13), rng.integers(0, 6)
        obj_boxes, obj_labels = boxes(m), rng.integers(classes, size=m)
        det_boxes, det_labels = boxes(n), rng.integers(classes, size=n)
        near = rng.integers(m, size=n // 2) if m else []
        det_boxes[:len(near)] = obj_boxes[near] + rng.normal(size=(len(near), 4))
        det_labels[:len(near)] = obj_labels[near]
        if whole_pixels:
            det_boxes, obj_boxes = det_boxes.round(), obj_boxes.round()
        scores = rng.integers(0, 4, n) / 4 if tied_scores else pool[12 * i:12 * i + n]
        detections.append(Detections(det_boxes.astype(np.float32), scores.astype(np.float32),
                                     det_labels))
        objects.append(Objects(obj_boxes.astype(np.float32), obj_labels, rng.random(m) < 0.25))
    return detections, objects
