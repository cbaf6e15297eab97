"""Check an exported detector against the PyTorch model that it came from."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.utils import get_test_pipeline_cfg
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmkd.deploy.runtime import Detections, Detector
from mmkd.errors import UserError

__all__ = ['Agreement', 'MismatchError', 'check_detections', 'check_images', 'check_random',
           'find_images', 'predict_maps']

SCORE_TOLERANCE = 1e-4
# In pixels: a hundred times what float32 leaves at 512 px, far less than anything that matters;
# and the share of the largest coordinate that is allowed besides.
BOX_TOLERANCE, RELATIVE_BOX_TOLERANCE = 0.01, 1e-5
IMAGES_PER_FOLDER = 20


class MismatchError(UserError):
    """The exported model and PyTorch differ."""


@dataclass
class Agreement:
    """How many boxes of how many inputs were compared, and the largest differences seen."""

    inputs: int = 0
    boxes: int = 0
    box_difference: float = 0.0
    score_difference: float = 0.0

    def __str__(self) -> str:
        return (f'{self.inputs} inputs, {self.boxes} boxes, largest difference '
                f'{self.box_difference:.1e} px in a box, {self.score_difference:.1e} in a score')

    def add(self, other: 'Agreement') -> None:
        """Take in the comparison of further inputs."""
        self.inputs += other.inputs
        self.boxes += other.boxes
        self.box_difference = max(self.box_difference, other.box_difference)
        self.score_difference = max(self.score_difference, other.score_difference)


def find_images(paths: Sequence[str | os.PathLike]) -> list[Path]:
    """Return the image files among ``paths``, and the first 20 by name of each folder.

    Raises:
        UserError: If a path does not exist, or a folder holds no image.
    """
    found = []
    for path in map(Path, paths):
        if path.is_dir():
            files = sorted(file for file in path.iterdir()
                           if file.suffix.lower() in ('.jpg', '.jpeg', '.png'))
            if not files:
                raise UserError(f"folder '{path}' holds no .jpg, .jpeg or .png file: correct "
                                '--images')
            found += files[:IMAGES_PER_FOLDER]
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"'{path}' does not exist: correct --images")
    return found


def predict_maps(model: nn.Module, image: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Run the PyTorch detector and decode *every* cell of its maps, in float64.

    Args:
        model: A CenterNet detector in evaluation mode.
        image: ``(N, 3, H, W)`` float32, normalised.

    Returns:
        heatmaps ``(N, C, h, w)`` and the box ``(x1, y1, x2, y2)`` that each cell predicts, in
        pixels of the input, ``(N, h, w, 4)``: the centre ``(column + offset) * stride`` plus and
        minus half the size.
    """
    with torch.no_grad():
        maps = [levels[-1].double().numpy()
                for levels in model.bbox_head(model.extract_feat(image))]
    heatmap, size, offset = maps
    rows, columns = np.indices(heatmap.shape[-2:])
    strides = np.array([image.shape[-1] / heatmap.shape[-1], image.shape[-2] / heatmap.shape[-2]])
    centre = (np.stack((columns, rows)) + offset).transpose(0, 2, 3, 1)
    half = size.transpose(0, 2, 3, 1) / 2
    return heatmap, np.concatenate(((centre - half) * strides, (centre + half) * strides), axis=-1)


def _neighbours_maximum(heatmap: np.ndarray, kernel: int) -> np.ndarray:
    """Largest of the cells around each, ``kernel`` wide and high, without itself; ``(C, h, w)``."""
    height, width = heatmap.shape[1:]
    reach = kernel // 2
    padded = np.pad(heatmap, ((0, 0), (reach, reach), (reach, reach)), constant_values=-np.inf)
    shifts = [padded[:, r:r + height, c:c + width]
              for r in range(kernel) for c in range(kernel) if (r, c) != (reach, reach)]
    return np.max(shifts, axis=0)


def _describe(label: int, score: float, box: np.ndarray) -> str:
    return f'label {label}, score {score:.6f}, box {np.round(box, 2).tolist()}'


def check_detections(detections: Detections, heatmap: np.ndarray, boxes: np.ndarray,
                     kernel: int = 3) -> Agreement:
    """Compare the exported model's detections of one input with PyTorch's maps.

    Order is of no account, and neither is which of several tied peaks is found: where a map
    is flat (the padding of an image is), rounding decides. Hence two questions. Is each detection
    a cell of PyTorch's maps, with the same label, box and score, and a peak to within the
    tolerance? Is each cell that is clearly a peak and clearly above the last detection found?

    Args:
        detections: What the exported model returned, score 0 meaning 'nothing'.
        heatmap: ``(C, h, w)`` float64, before peak picking.
        boxes: ``(h, w, 4)`` float64, in the pixels of the detections.
        kernel: A peak is the largest of ``kernel`` x ``kernel`` cells.

    Raises:
        MismatchError: If a detection differs or a peak is missing.
    """
    neighbours = _neighbours_maximum(heatmap, kernel)
    peaks = heatmap >= neighbours - SCORE_TOLERANCE
    agreement, found = Agreement(inputs=1), set()
    for box, score, label in zip(*detections, strict=True):
        if score == 0:
            continue
        where = _describe(label, score, box)
        if label not in range(len(heatmap)):
            raise MismatchError(f'PyTorch has no such label: {where}')
        score_differences = np.abs(heatmap[label] - score)
        rows, columns = np.nonzero(peaks[label] & (score_differences <= SCORE_TOLERANCE))
        differences = np.abs(boxes[rows, columns] - box).max(axis=1, initial=0)
        tolerance = BOX_TOLERANCE + RELATIVE_BOX_TOLERANCE * np.abs(box).max()
        if not len(rows) or not differences.min() <= tolerance:
            raise MismatchError(f'PyTorch has no such detection: {where}')
        best = differences.argmin()
        cell = (int(label), int(rows[best]), int(columns[best]))
        if cell in found:
            raise MismatchError(f'a detection comes twice: {where}')
        found.add(cell)
        agreement.boxes += 1
        agreement.box_difference = max(agreement.box_difference, float(differences[best]))
        agreement.score_difference = max(agreement.score_difference,
                                         float(score_differences[cell[1:]]))
    clear = ((heatmap > neighbours + SCORE_TOLERANCE)
             & (heatmap > detections.scores.min() + SCORE_TOLERANCE))
    missing = {tuple(cell) for cell in np.argwhere(clear).tolist()} - found
    if missing:
        label, row, column = min(missing)
        where = _describe(label, heatmap[label, row, column], boxes[row, column])
        raise MismatchError(f'a detection of PyTorch is missing: {where}')
    return agreement


def check_random(detector: Detector, model: nn.Module) -> Agreement:
    """Compare on random inputs, in a batch of one and a batch of three.

    Raises:
        MismatchError: If the results differ.
    """
    generator = torch.Generator().manual_seed(0)
    kernel = model.bbox_head.test_cfg.local_maximum_kernel
    agreement = Agreement()
    for batch in (1, 3):
        image = torch.randn(batch, 3, *detector.metadata.input_size, generator=generator)
        outputs = detector.session.run(None, {'image': image.numpy()})
        maps = predict_maps(model, image)
        for one in zip(*outputs, *maps, strict=True):
            agreement.add(check_detections(Detections(*one[:3]), *one[3:], kernel))
    return agreement


def check_images(detector: Detector, model: nn.Module,
                 paths: Sequence[str | os.PathLike]) -> Agreement:
    """Compare on image files, from the file to boxes in its pixels.

    PyTorch's side goes through the test pipeline of ``model.cfg`` and the model's data
    preprocessor, the exported model's through :class:`Detector`.

    Raises:
        UserError: If a file cannot be read; names it.
        MismatchError: If the results differ; names the file.
    """
    with DefaultScope.overwrite_default_scope(model.cfg.get('default_scope', 'mmkd')):
        pipeline = Compose(get_test_pipeline_cfg(model.cfg))
    kernel = model.bbox_head.test_cfg.local_maximum_kernel
    agreement = Agreement()
    for index, path in enumerate(paths):
        # OpenCV reports a file that is missing only by a warning.
        image = cv2.imread(os.fspath(path)) if Path(path).is_file() else None
        if image is None:
            raise UserError(f"image '{path}' is missing or does not decode: mend or remove it")
        sample = pipeline(dict(img_path=os.fspath(path), img_id=index))
        batch = model.data_preprocessor(
            dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']]))
        heatmap, boxes = (maps[0] for maps in predict_maps(model, batch['inputs']))
        boxes = boxes / np.tile(batch['data_samples'][0].scale_factor, 2)
        try:
            agreement.add(check_detections(detector(image), heatmap, boxes, kernel))
        except MismatchError as error:
            raise MismatchError(f"on '{path}' {error}") from error
    return agreement
