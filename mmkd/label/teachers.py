"""Ask detectors what they see in an image, and join what they say."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DefaultScope

from mmkd.distillation import build_model, load_weights
from mmkd.engine.config import classes_of, load_config
from mmkd.errors import UserError
from mmkd.evaluation.voc_map import Detections
from mmkd.images import read_image

__all__ = ['Teacher', 'Teachers']

LEAST = 0.01
"""Boxes below are left out before anything is joined: no threshold is as low."""


class Teacher:
    """One detector, which sees images as the test pipeline of its config prepares them.

    Raises:
        UserError: config or checkpoint cannot be read, or it is no detector with a test pipeline.
    """

    def __init__(self, config: str, checkpoint: str) -> None:
        self.cfg: Config = load_config(config)
        dataset = (self.cfg.get('test_dataloader') or {}).get('dataset') or {}
        if not dataset.get('pipeline'):
            raise UserError(f"the teacher's config '{config}' has no pipeline in "
                            'test_dataloader.dataset: name the config of a detector')
        self._scope = self.cfg.get('default_scope', 'mmkd')
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
        self._model = build_model(self.cfg).to(device).eval()
        meta = load_weights(self._model, checkpoint)
        self.classes = tuple((meta.get('dataset_meta') or {}).get('classes')
                             or next(classes_of(dataset), ()))
        with DefaultScope.overwrite_default_scope(self._scope):
            self._prepare = Compose(list(_of_image(dataset['pipeline'])))

    @torch.no_grad()
    def __call__(self, path: str) -> Detections:
        """Return what it finds in an image file, in pixels of the file."""
        with DefaultScope.overwrite_default_scope(self._scope):
            item = self._prepare(dict(img_path=path, img_id=0, instances=[]))
            found = self._model.test_step(pseudo_collate([item]))[0].pred_instances.cpu()
        return Detections(found.bboxes.numpy().reshape(-1, 4), found.scores.numpy(),
                          found.labels.numpy())


class Teachers:
    """Several detectors as one, for the classes that all of them know, by their names.

    The boxes of several are joined by weighted box fusion (Solovyev et al., 2021, arXiv
    1910.13302), as the package `ensemble-boxes` has it, with its own settings. A box that only one
    of two teachers sees keeps half its score.

    Raises:
        UserError: no class is common to all, or `ensemble-boxes` is not installed.
    """

    def __init__(self, members: Sequence[Teacher]) -> None:
        self._members = members
        self.classes = tuple(name for name in members[0].classes
                             if all(name in one.classes for one in members))
        if not self.classes:
            raise UserError('the teachers have no class in common: they know '
                            + '; '.join(', '.join(one.classes[:9]) for one in members))
        if len(members) > 1:
            self._fuse = _fusion()

    def __call__(self, path: str | Path) -> tuple[Detections, tuple[int, int]]:
        """Return what they find in an image file, and its width and height.

        Raises:
            UserError: the file cannot be read as an image.
        """
        height, width = read_image(str(path)).shape[:2]
        whole = np.array([width, height, width, height], np.float32)
        found = [self._known(one(str(path)), one.classes, whole) for one in self._members]
        if len(found) == 1:
            return found[0], (width, height)
        boxes, scores, labels = self._fuse(
            [one.boxes / whole for one in found], [one.scores for one in found],
            [one.labels for one in found])
        return Detections(boxes.reshape(-1, 4) * whole, scores, labels.astype(int)), (width, height)

    def _known(self, found: Detections, classes: Sequence[str], whole: np.ndarray) -> Detections:
        """Return what lies in the image and belongs to a common class."""
        number = np.array([self.classes.index(name) if name in self.classes else -1
                           for name in classes])
        labels = number[found.labels]
        # Where an image was padded there are boxes beside it.
        boxes = np.clip(found.boxes, 0, whole)
        x1, y1, x2, y2 = boxes.T
        kept = (labels >= 0) & (found.scores >= LEAST) & (x2 > x1) & (y2 > y1)
        return Detections(boxes[kept], found.scores[kept], labels[kept])


def _fusion() -> Callable:
    try:
        from ensemble_boxes import weighted_boxes_fusion
    except ModuleNotFoundError as error:
        raise UserError(f'joining several teachers needs the package {error.name}, which is not '
                        'installed: pip install mmkd[label], or name one teacher') from error
    return weighted_boxes_fusion


def _of_image(pipeline: Sequence[dict]) -> Iterator[dict]:
    """Yield the transforms of an image without labels."""
    for transform in pipeline:
        name = transform['type'].rpartition('.')[2]
        if name == 'LoadImageFromFile':  # LoadImage says what is wrong with a file
            yield dict(transform, type='LoadImage')
        elif name != 'LoadAnnotations':
            yield transform
