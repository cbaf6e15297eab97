"""A contact sheet: labelled images in rows, as one picture."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from mmkd.deploy.device.drawing import draw
from mmkd.deploy.device.runtime import Classification, Detections
from mmkd.errors import UserError
from mmkd.files import written_atomically

__all__ = ['labelled', 'spread', 'write_sheet']

COLUMNS = 4
CELL = 256
"""Side of the square that an image is brought into."""
MARGIN = 3


def spread(count: int, wanted: int) -> list[int]:
    """Return the numbers of ``wanted`` of ``count`` images, evenly spaced; all if there are fewer.
    """
    wanted = min(count, wanted)
    return [count * (2 * i + 1) // (2 * wanted) for i in range(wanted)]


def labelled(image: np.ndarray, labels: Sequence[int], classes: Sequence[str],
             boxes: np.ndarray | None = None) -> np.ndarray:
    """Return an image enlarged or reduced to the size of a cell, with what it is labelled with.

    Args:
        image: ``(h, w, 3)`` uint8 in BGR order.
        labels: of the boxes, or of the image.
        classes: names by label.
        boxes: ``(K, 4)``, x1, y1, x2, y2 in pixels of the image; None for labels of the image.
    """
    factor = CELL / max(image.shape[:2])
    size = [max(round(side * factor), 1) for side in image.shape[1::-1]]
    picture = cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1
                         else cv2.INTER_NEAREST)
    ones, labels = np.ones(len(labels), np.float32), np.array(labels, np.int64)
    if boxes is None:
        return draw(picture, Classification(ones, labels), classes, with_scores=False)
    boxes = np.array(boxes, np.float32).reshape(-1, 4) * factor
    return draw(picture, Detections(boxes, ones, labels), classes, with_scores=False)


def write_sheet(pictures: Sequence[np.ndarray], out: str | Path) -> None:
    """Write pictures of at most a cell's size in rows of four.

    Args:
        pictures: of :func:`labelled`, at least one.
        out: a ``.png`` or ``.jpg``.

    Raises:
        UserError: ``out`` is no such name, or cannot be written.
    """
    if not cv2.haveImageWriter(str(out)):
        raise UserError(f"'{out}' is no picture that OpenCV can write: name a .png or .jpg")
    blank = np.full((CELL, CELL, 3), 255, np.uint8)
    cells = [_cell(picture) for picture in pictures]
    columns = min(COLUMNS, len(cells))
    cells += [_cell(blank)] * (-len(cells) % columns)
    rows = [np.hstack(cells[i:i + columns]) for i in range(0, len(cells), columns)]
    with written_atomically(Path(out)) as temporary:
        temporary.write_bytes(cv2.imencode(Path(out).suffix, np.vstack(rows))[1].tobytes())


def _cell(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    return cv2.copyMakeBorder(picture, MARGIN, MARGIN + CELL - height, MARGIN,
                              MARGIN + CELL - width, cv2.BORDER_CONSTANT, value=(255, 255, 255))
