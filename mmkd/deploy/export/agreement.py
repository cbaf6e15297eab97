"""Compare what an exported model returns with what PyTorch computes."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mmkd.deploy.device.runtime import Detections
from mmkd.errors import UserError

__all__ = ['FLOAT16', 'FLOAT32', 'Agreement', 'MismatchError', 'Tolerance', 'check_detections',
           'check_scores', 'describe', 'predict_maps']


class Tolerance(NamedTuple):
    """How far apart the two may be.

    ``score`` is for scores and probabilities, ``box`` in pixels of the input, and ``relative_box``
    the share of the largest coordinate that is allowed besides.
    """

    score: float
    box: float
    relative_box: float


# A hundred times what float32 leaves at 512 px, far less than anything that matters.
FLOAT32 = Tolerance(score=1e-4, box=0.01, relative_box=1e-5)
# Several times what trained students leave at 128 px; four roundings of the largest coordinate.
FLOAT16 = Tolerance(score=0.01, box=0.25, relative_box=2e-3)


class MismatchError(UserError):
    """The exported model and PyTorch differ."""


@dataclass
class Agreement:
    """How many outputs were compared, and the largest differences seen.

    ``boxes`` is the number of boxes, 0 for a classifier; ``box_difference`` is in pixels,
    ``pixel_difference`` in grey levels of the prepared image.
    """

    inputs: int = 0
    boxes: int = 0
    box_difference: float = 0.0
    score_difference: float = 0.0
    pixel_difference: float = 0.0

    def __str__(self) -> str:
        counts, largest = [f'{self.inputs} inputs'], [f'{self.score_difference:.1e} in a score']
        if self.boxes:
            counts.append(f'{self.boxes} boxes')
            largest.insert(0, f'{self.box_difference:.1e} px in a box')
        if self.pixel_difference:
            largest.append(f'{self.pixel_difference:.2g} grey levels in the prepared image')
        return f"{', '.join(counts)}, largest difference {', '.join(largest)}"

    def add(self, other: 'Agreement') -> None:
        """Take in the comparison of further inputs."""
        self.inputs += other.inputs
        self.boxes += other.boxes
        self.box_difference = max(self.box_difference, other.box_difference)
        self.score_difference = max(self.score_difference, other.score_difference)
        self.pixel_difference = max(self.pixel_difference, other.pixel_difference)


def check_scores(scores: np.ndarray, expected: np.ndarray,
                   tolerance: Tolerance = FLOAT32) -> Agreement:
    """Compare the probabilities ``(C,)`` of one image.

    Raises:
        MismatchError: If one differs.
    """
    differences = np.abs(scores - expected)
    # Written so that what is not a number fails, too.
    if scores.shape != expected.shape or not (differences <= tolerance.score).all():
        worst = int(np.argmax(differences))
        raise MismatchError(f'class {worst} has the probability {scores[worst]:.6f}, in PyTorch '
                            f'{expected[worst]:.6f}')
    return Agreement(inputs=1, score_difference=float(differences.max()))


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


def describe(label: int, score: float, box: np.ndarray) -> str:
    """Say in words which detection is meant."""
    return f'label {label}, score {score:.6f}, box {np.round(box, 2).tolist()}'


def check_detections(detections: Detections, heatmap: np.ndarray, boxes: np.ndarray,
                     kernel: int = 3, tolerance: Tolerance = FLOAT32) -> Agreement:
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
        tolerance: How far apart the two may be.

    Raises:
        MismatchError: If a detection differs or a peak is missing.
    """
    neighbours = _neighbours_maximum(heatmap, kernel)
    peaks = heatmap >= neighbours - tolerance.score
    agreement, found = Agreement(inputs=1), set()
    for box, score, label in zip(*detections, strict=True):
        if score == 0:
            continue
        where = describe(label, score, box)
        if label not in range(len(heatmap)):
            raise MismatchError(f'PyTorch has no such label: {where}')
        score_differences = np.abs(heatmap[label] - score)
        rows, columns = np.nonzero(peaks[label] & (score_differences <= tolerance.score))
        differences = np.abs(boxes[rows, columns] - box).max(axis=1, initial=0)
        allowed = tolerance.box + tolerance.relative_box * np.abs(box).max()
        near = np.argsort(differences)[:np.count_nonzero(differences <= allowed)]
        if not len(near):
            raise MismatchError(f'PyTorch has no such detection: {where}')
        cells = [(int(label), int(rows[i]), int(columns[i])) for i in near]
        free = [place for place, cell in enumerate(cells) if cell not in found]
        if not free:
            raise MismatchError(f'a detection comes twice: {where}')
        cell = cells[free[0]]
        found.add(cell)
        agreement.boxes += 1
        agreement.box_difference = max(agreement.box_difference,
                                       float(differences[near[free[0]]]))
        agreement.score_difference = max(agreement.score_difference,
                                         float(score_differences[cell[1:]]))
    clear = ((heatmap > neighbours + tolerance.score)
             & (heatmap > detections.scores.min() + tolerance.score))
    missing = {tuple(cell) for cell in np.argwhere(clear).tolist()} - found
    if missing:
        label, row, column = min(missing)
        where = describe(label, heatmap[label, row, column], boxes[row, column])
        raise MismatchError(f'a detection of PyTorch is missing: {where}')
    return agreement
