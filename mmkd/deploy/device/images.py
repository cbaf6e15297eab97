"""Read an image file with OpenCV alone, or say why it cannot be read; scale an image."""

import os

import cv2
import numpy as np

from .standalone import UserError

__all__ = ['damage', 'load_image', 'resize_antialiased']

# Weights of pixels are whole multiples of 2**-22: 8 bits of a pixel and a carry fit into an int32.
_WEIGHT_BITS = 22


def load_image(path: str | os.PathLike) -> np.ndarray:
    """Read one image file; the pixels are those that :func:`mmkd.images.read_image` returns.

    Returns:
        The uint8 image, H x W x 3 in BGR order, turned as its EXIF entry says.

    Raises:
        UserError: If the file is missing, empty, cut off or not an image.
    """
    try:
        with open(path, 'rb') as file:
            content = file.read()
    except (OSError, ValueError) as error:  # the latter: no possible name
        raise UserError(f"image '{path}' cannot be read ({getattr(error, 'strerror', error)}): "
                        'correct the path or its permissions') from error
    what = damage(content)
    if what is None:
        try:
            image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:
            image = None
        if image is not None:
            return image
        what = 'does not decode'
    raise UserError(f"image '{path}' {what}: replace it or take it out")


def damage(content: bytes) -> str | None:
    """Say what is wrong with the content of an image file before it is decoded, or None."""
    if not content:
        return 'is empty'
    return 'is cut off' if _is_cut_off(content) else None


def _is_cut_off(content: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end marker."""
    if content.startswith(b'\xff\xd8'):
        # An EXIF thumbnail ahead of the last scan has an end marker of its own.
        return content.find(b'\xff\xd9', max(content.rfind(b'\xff\xda'), 0)) < 0
    return content.startswith(b'\x89PNG') and b'IEND' not in content


def resize_antialiased(image: np.ndarray, size: tuple[int, int],
                       crop: tuple[int, int] | None = None) -> np.ndarray:
    """Scale an image bilinearly, averaging where it shrinks, and cut the centre out.

    A new pixel is the mean of the old ones around its centre, weighted by a triangle
    ``max(0, 1 - |distance| / s)`` with ``s`` the larger of 1 and the factor of shrinking: columns
    first, then rows, each rounded to uint8. That is the bilinear filter of Pillow, which published
    ImageNet weights are evaluated with; a Pillow that takes the rows first, as new ones do where
    the image shrinks far more in height than in width, differs by one grey level. Only what the
    crop keeps is computed.

    Args:
        image: ``(h, w, 3)`` uint8.
        size: New height and width.
        crop: Height and width of the central part to return, at most ``size``; all by default.

    Returns:
        ``(*crop, 3)`` uint8.
    """
    crop = size if crop is None else crop
    # Halves to even: as the crop of the data sets rounds.
    starts = [round((whole - part) / 2) for whole, part in zip(size, crop, strict=True)]
    for axis in (1, 0):
        image = _resample(image, axis, size[axis], starts[axis], crop[axis])
    return image


def _resample(image: np.ndarray, axis: int, size: int, start: int, count: int) -> np.ndarray:
    """Scale one axis to ``size`` and return ``count`` pixels of it from ``start`` on."""
    places, weights = _neighbours(image.shape[axis], size, start, count)
    shape = (-1, 1, 1) if axis == 0 else (1, -1, 1)
    total = 1 << (_WEIGHT_BITS - 1)
    for place, weight in zip(places.T, weights.T, strict=True):
        total = total + image.take(place, axis) * weight.reshape(shape)
    return (total >> _WEIGHT_BITS).astype(np.uint8)


def _neighbours(old: int, new: int, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Which old pixels make up each new one, and with which weights, ``(count, k)`` int32."""
    scale = old / new
    support = max(scale, 1.0)
    centres = (np.arange(start, start + count) + 0.5) * scale
    first = np.maximum((centres - support + 0.5).astype(np.int32), 0)
    end = np.minimum((centres + support + 0.5).astype(np.int32), old)
    places = first[:, None] + np.arange((end - first).max())
    distances = (places - centres[:, None] + 0.5) * (1 / support)
    weights = np.maximum(1 - np.abs(distances), 0)
    weights[places >= end[:, None]] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    return (np.minimum(places, old - 1),
            (weights * (1 << _WEIGHT_BITS) + 0.5).astype(np.int32))
