"""One picture that compares detectors: the same images, a column for each."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope, init_default_scope

from mmkd.deploy.drawing import draw
from mmkd.deploy.files import written_atomically
from mmkd.deploy.runtime import Detections
from mmkd.distillation import build_model, load_weights
from mmkd.registry import DATASETS

__all__ = ['Column', 'draw_comparison']

SCORE = 0.3
"""Boxes below are not drawn."""
HEIGHT = 256
TITLE = 28
MARGIN = 3


class Column(NamedTuple):
    """One detector of the picture."""

    title: str
    config: str | Path
    checkpoint: str | Path


def draw_comparison(columns: Sequence[Column], out: str | Path, count: int = 4) -> list[str]:
    """Draw the ground truth and what each detector finds in a few test images.

    The images are spread evenly over the test set of the first config, so that nobody chose them.
    A row is an image; the first column has the official boxes, those after it each detector's
    boxes with a score of at least 0.3.

    Args:
        columns: the detectors, all for the same classes.
        out: the picture, ``.jpg`` or ``.png``.
        count: number of images.

    Returns:
        the paths of the images.

    Raises:
        UserError: a config or checkpoint cannot be read, or the picture cannot be written.
    """
    cfg = Config.fromfile(columns[0].config)
    init_default_scope(cfg.get('default_scope', 'mmkd'))
    dataset = DATASETS.build(copy.deepcopy(cfg.test_dataloader.dataset))
    classes = dataset.metainfo['classes']
    chosen = [len(dataset) * (2 * i + 1) // (2 * count) for i in range(count)]
    items = [dataset[i] for i in chosen]
    paths = [item['data_samples'].img_path for item in items]
    images = [cv2.imread(path) for path in paths]
    found = [[_truth(dataset.get_data_info(i)['instances']) for i in chosen],
             *(_predictions(column, items) for column in columns)]
    titles = ['ground truth', *(column.title for column in columns)]
    picture = np.hstack([_column(title, [_drawn(*pair, classes) for pair in
                                         zip(images, boxes, strict=True)])
                         for title, boxes in zip(titles, found, strict=True)])
    with written_atomically(Path(out)) as temporary:
        temporary.write_bytes(cv2.imencode(Path(out).suffix, picture)[1])
    return paths


def _truth(instances: Sequence[dict]) -> Detections:
    kept = [one for one in instances if not one.get('ignore_flag')]
    return Detections(np.array([one['bbox'] for one in kept], np.float32).reshape(-1, 4),
                      np.ones(len(kept), np.float32),
                      np.array([one['bbox_label'] for one in kept], np.int64))


@torch.no_grad()
def _predictions(column: Column, items: Sequence[dict]) -> list[Detections]:
    with DefaultScope.overwrite_default_scope('mmkd'):
        model = build_model(column.config).eval()
        load_weights(model, column.checkpoint)
        results = [model.test_step(pseudo_collate([copy.deepcopy(item)]))[0] for item in items]
    found = []
    for result in results:
        kept = result.pred_instances[result.pred_instances.scores >= SCORE]
        found.append(Detections(kept.bboxes.numpy(), kept.scores.numpy(), kept.labels.numpy()))
    return found


def _drawn(image: np.ndarray, found: Detections, classes: Sequence[str]) -> np.ndarray:
    """Enlarge first: names in a small picture would hide it."""
    factor = HEIGHT / image.shape[0]
    enlarged = cv2.resize(image, (round(image.shape[1] * factor), HEIGHT))
    return draw(enlarged, found._replace(boxes=found.boxes * factor), classes)


def _column(title: str, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Put pictures of one height below a title."""
    width = max(picture.shape[1] for picture in pictures) + 2 * MARGIN
    head = np.full((TITLE, width, 3), 255, np.uint8)
    cv2.putText(head, title, (MARGIN, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    padded = [cv2.copyMakeBorder(p, MARGIN, MARGIN, MARGIN, width - p.shape[1] - MARGIN,
                                 cv2.BORDER_CONSTANT, value=(255, 255, 255)) for p in pictures]
    return np.vstack([head, *padded])
