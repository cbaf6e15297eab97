"""One picture that compares detectors: the same images, a column for each."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from mmengine.dataset import BaseDataset, Compose, pseudo_collate
from mmengine.registry import DefaultScope, init_default_scope

from mmkd.deploy.device.drawing import draw
from mmkd.deploy.device.runtime import Detections
from mmkd.distillation import build_model, load_weights
from mmkd.engine.config import load_config
from mmkd.errors import UserError
from mmkd.files import written_atomically
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


def draw_comparison(columns: Sequence[Column], out: str | Path, count: int = 4,
                    split: str = 'test') -> list[str]:
    """Draw the ground truth and what each detector finds in a few images.

    The images are spread evenly over the test (or validation) set of the first config, so that
    nobody chose them. A row is an image; the first column has the labelled boxes (without those
    that the metric ignores), those after it each detector's boxes with a score of at least 0.3.

    Args:
        columns: the detectors, all for the same classes; each sees the images as its own config
            prepares them.
        out: the picture, ``.jpg`` or ``.png``.
        count: number of images; fewer if the set has fewer.
        split: ``'test'`` or ``'val'``.

    Returns:
        the paths of the images.

    Raises:
        UserError: a config or checkpoint cannot be read or is for other classes, or the picture
            cannot be written.
    """
    if not cv2.haveImageWriter(str(out)):
        raise UserError(f"'{out}' is no picture that OpenCV can write: name a .jpg or .png")
    cfg = load_config(columns[0].config)
    init_default_scope(cfg.get('default_scope', 'mmkd'))
    dataset = DATASETS.build(cfg[f'{split}_dataloader'].dataset)
    classes = tuple(dataset.metainfo['classes'])
    count = min(count, len(dataset))
    chosen = [len(dataset) * (2 * i + 1) // (2 * count) for i in range(count)]
    infos = [dataset.get_data_info(i) for i in chosen]
    found = [[_truth(info['instances']) for info in infos],
             *(_predictions(column, dataset, chosen, classes) for column in columns)]
    titles = ['ground truth', *(column.title for column in columns)]
    images = [cv2.imread(info['img_path']) for info in infos]
    picture = np.hstack([_column(title, [_drawn(*pair, classes) for pair in
                                         zip(images, boxes, strict=True)])
                         for title, boxes in zip(titles, found, strict=True)])
    with written_atomically(Path(out)) as temporary:
        temporary.write_bytes(cv2.imencode(Path(out).suffix, picture)[1])
    return [info['img_path'] for info in infos]


def _truth(instances: Sequence[dict]) -> Detections:
    kept = [one for one in instances if not one.get('ignore_flag')]
    return Detections(np.array([one['bbox'] for one in kept], np.float32).reshape(-1, 4),
                      np.ones(len(kept), np.float32),
                      np.array([one['bbox_label'] for one in kept], np.int64))


@torch.no_grad()
def _predictions(column: Column, dataset: BaseDataset, chosen: Sequence[int],
                 classes: tuple[str, ...]) -> list[Detections]:
    cfg = load_config(column.config)
    model = build_model(cfg).eval()
    meta = load_weights(model, column.checkpoint)
    own = (meta.get('dataset_meta') or {}).get('classes')
    if own is not None and tuple(own) != classes:
        raise UserError(f"'{column.checkpoint}' is for the classes {', '.join(own)} and the test "
                        f"images are for {', '.join(classes)}: compare detectors of the same "
                        'classes')
    found = []
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmkd')):
        prepare = Compose(cfg.test_dataloader.dataset.pipeline)
        for index in chosen:
            item = prepare(dataset.get_data_info(index))
            result = model.test_step(pseudo_collate([item]))[0].pred_instances
            kept = result[result.scores >= SCORE]
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
