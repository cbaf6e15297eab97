"""Draw one image of the synthetic data set: shapes on a textured background."""

from dataclasses import dataclass

import cv2
import numpy as np

__all__ = ['DRAWN_CLASSES', 'DrawnObject', 'draw_image', 'voc_box']

# Three, since a small network without initial weights learns where things are long before it
# learns what they are: with six it spends a short training confusing them.
DRAWN_CLASSES = ('disc', 'square', 'triangle')

_SUPERSAMPLING = 8
_TYPICAL = 0.9  # the share of objects that wear the pattern of their class


@dataclass
class DrawnObject:
    """One object: ``visible`` is its H x W bool mask after truncation and occlusion."""

    name: str
    visible: np.ndarray
    area: int  # pixels of the whole shape, off the image too
    inside: int  # pixels of the shape that lie in the image, covered or not
    faint: bool

    @property
    def truncated(self) -> bool:
        """Whether the border cuts something off."""
        return self.inside < 0.95 * self.area

    @property
    def occluded(self) -> bool:
        """Whether a later object covers something."""
        return self.visible.sum() < 0.95 * self.inside

    @property
    def difficult(self) -> bool:
        """Whether less than half is seen or it hardly stands out."""
        return self.faint or self.visible.sum() < 0.5 * self.area


def voc_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The tight box (xmin, ymin, xmax, ymax) of a mask: 1-based, inclusive."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (int(columns[0]) + 1, int(rows[0]) + 1, int(columns[-1]) + 1, int(rows[-1]) + 1)


def draw_image(rng: np.random.Generator, size: int) -> tuple[np.ndarray, list[DrawnObject]]:
    """Return a size x size x 3 uint8 image and its objects, the lowest first."""
    image = _texture(rng, size, contrast=rng.uniform(5, 30))
    _draw_strokes(rng, image, count=rng.integers(1, 5))
    objects: list[DrawnObject] = []
    for _ in range(1 + rng.binomial(5, 0.35)):
        _try_to_place(rng, image, objects)
    noise = rng.normal(0, rng.uniform(1, 8), image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8), objects


def _texture(rng: np.random.Generator, size: int, contrast: float) -> np.ndarray:
    """A random colour with a gradient and noise of several frequencies: size x size x 3 float."""
    ramp = np.linspace(-1, 1, size)
    image = rng.uniform(60, 190) + rng.uniform(-20, 20, 3) + np.zeros((size, size, 3))
    image += ramp[:, None, None] * rng.uniform(-20, 20, 3)
    image += ramp[None, :, None] * rng.uniform(-20, 20, 3)
    cells = 2
    while cells <= size // 2:
        grid = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        # The _EXACT interpolation gives the same bytes on every processor.
        smooth = cv2.resize(grid, (size, size), interpolation=cv2.INTER_LINEAR_EXACT)
        image += (smooth / 127.5 - 1) * contrast * rng.uniform(0, 1) / np.log2(cells)
        cells *= 2
    return np.clip(image, 0, 255)


def _draw_strokes(rng: np.random.Generator, image: np.ndarray, count: int) -> None:
    """Distractors: open lines, hooks and arcs that belong to no class."""
    size = len(image)
    for _ in range(count):
        length = size * rng.uniform(0.06, 0.35)
        # The same turn at every corner makes an arc, another one at each a zigzag.
        bends = rng.uniform(-1.2, 1.2, 4 if rng.random() < 0.5 else 1) + np.zeros(4)
        turn = rng.uniform(0, 2 * np.pi) + np.cumsum(bends)
        steps = np.stack([np.cos(turn), np.sin(turn)], 1) * length / 4
        points = rng.uniform(0, size, 2) + np.cumsum(np.vstack([[0, 0], steps]), 0)
        stroke = np.zeros((size, size), np.uint8)
        cv2.polylines(stroke, [np.rint(points * 16).astype(np.int32)], False, 255,
                      int(rng.integers(1, 4)), cv2.LINE_AA, shift=4)
        _blend(image, stroke / 255, image.mean((0, 1)) + rng.uniform(-80, 80, 3))


def _try_to_place(rng: np.random.Generator, image: np.ndarray,
                  objects: list[DrawnObject]) -> None:
    """Draw one more object on top, unless it would bury what is there; change both arguments."""
    size = len(image)
    name = DRAWN_CLASSES[rng.integers(len(DRAWN_CLASSES))]
    side = rng.uniform(8, size / 2)
    for _ in range(10):
        alpha = _shape_mask(rng, name, side)
        centre = rng.uniform(0, size, 2)
        left, top = np.rint(centre - np.array(alpha.shape[::-1]) / 2).astype(int)
        layer = np.zeros((size, size))
        _paste(layer, alpha, top, left)
        mask, area = layer > 0.5, int((alpha > 0.5).sum())
        if mask.sum() >= 0.35 * area and all(
                (below.visible & ~mask).sum() >= 0.35 * below.area for below in objects):
            break
    else:
        return
    faint = bool(rng.random() < 0.06)
    _blend(image, layer, _fill(rng, image, mask, name, faint))
    for below in objects:
        below.visible &= ~mask
    objects.append(DrawnObject(name, mask, area, int(mask.sum()), faint))


def _shape_mask(rng: np.random.Generator, name: str, side: float) -> np.ndarray:
    """Coverage in 0..1 of a turned, stretched shape whose longer side is about ``side`` px."""
    polygon = _outline(name)
    angle = rng.uniform(0, 2 * np.pi)
    stretch = np.array([1.0, rng.uniform(0.7, 1.0)])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    polygon = (polygon * stretch) @ turn
    low, high = polygon.min(0), polygon.max(0)
    scale = side / (high - low).max()
    width, height = np.ceil((high - low) * scale).astype(int) + 2
    fine = np.zeros((height * _SUPERSAMPLING, width * _SUPERSAMPLING), np.uint8)
    pixels = np.rint(((polygon - low) * scale + 1) * _SUPERSAMPLING).astype(np.int32)
    cv2.fillPoly(fine, [pixels], 1)
    return fine.reshape(height, _SUPERSAMPLING, width, _SUPERSAMPLING).mean((1, 3))


def _outline(name: str) -> np.ndarray:
    """The corners (K x 2, around the origin) of a class."""
    if name == 'square':
        return np.array([[1.0, 1], [1, -1], [-1, -1], [-1, 1]])
    angles = np.linspace(0, 2 * np.pi, 48 if name == 'disc' else 3, endpoint=False) - np.pi / 2
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def _fill(rng: np.random.Generator, image: np.ndarray, mask: np.ndarray, name: str,
          faint: bool) -> np.ndarray:
    """A patterned colour (H x W x 3) that differs from what it covers: little if ``faint``."""
    covered = image[mask].mean(0)
    distance = rng.uniform(8, 14) if faint else rng.uniform(60, 150)
    direction = rng.normal(size=3)
    offset = direction / np.linalg.norm(direction) * distance
    # Away from the end of the range, where clipping would take the contrast back.
    offset = np.where((covered + offset < 0) | (covered + offset > 255), -offset, offset)
    size = len(image)
    texture = _texture(rng, size, contrast=rng.uniform(0, 35))
    if faint:
        return covered + offset + np.zeros_like(image)
    typical = rng.random() < _TYPICAL
    pattern = name if typical else DRAWN_CLASSES[rng.integers(len(DRAWN_CLASSES))]
    relief = _pattern(rng, pattern, size)[..., None] * rng.uniform(30, 60)
    return np.clip(covered + offset + texture - texture[mask].mean(0) + relief, 0, 255)


def _pattern(rng: np.random.Generator, name: str, size: int) -> np.ndarray:
    """A size x size surface of -1 and 1 (0 where plain), at any phase and in any direction."""
    angle, wave = rng.uniform(0, 2 * np.pi), rng.uniform(5, 9)
    y, x = np.mgrid[:size, :size] * 2 * np.pi / wave + rng.uniform(0, 2 * np.pi, (2, 1, 1))
    u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    if name == 'square':
        return np.sign(np.sin(u))  # stripes
    if name == 'triangle':
        return np.sign(np.sin(u) * np.sin(v))  # checks
    return np.zeros((size, size))


def _paste(layer: np.ndarray, patch: np.ndarray, top: int, left: int) -> None:
    """Write the part of ``patch`` that lies inside ``layer`` at (top, left)."""
    rows, columns = layer.shape
    y, x = max(-top, 0), max(-left, 0)
    inside = patch[y:rows - top, x:columns - left]
    layer[top + y:top + y + inside.shape[0], left + x:left + x + inside.shape[1]] = inside


def _blend(image: np.ndarray, alpha: np.ndarray, colour: np.ndarray) -> None:
    """Put ``colour`` (3 or H x W x 3) over ``image`` in place with coverage ``alpha`` (H x W)."""
    image += alpha[..., None] * (colour - image)
