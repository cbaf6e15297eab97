"""Read an image file with OpenCV, or say why it cannot be read; scale an image by Pillow."""

import os

import cv2
import numpy as np

from .standalone import UserError

__all__ = ['damage', 'load_image', 'resize_antialiased']

MOST_PIXELS = 2 ** 27


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
    """Scale an image by Pillow's bilinear filter and cut the centre out.

    Unlike OpenCV's, it averages where it shrinks; published ImageNet weights are evaluated with it.

    Args:
        image: ``(h, w, 3)`` uint8.
        size: New height and width.
        crop: Height and width of the central part to return, at most ``size``; all by default.

    Returns:
        ``(*crop, 3)`` uint8.

    Raises:
        UserError: If Pillow is not installed, which detectors do without, or the scaled image would
            have more than ``MOST_PIXELS``.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise UserError('this model scales images as Pillow does, which is not installed: '
                        'pip install pillow') from error
    if size[0] * size[1] > MOST_PIXELS:
        raise UserError(f'an image of {image.shape[1]} x {image.shape[0]} is so narrow that it '
                        f'would be scaled to {size[1]} x {size[0]}: cut it')
    scaled = np.array(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
    height, width = size if crop is None else crop
    # Halves to even: as the crop of the data sets rounds.
    top, left = round((size[0] - height) / 2), round((size[1] - width) / 2)
    return scaled[top:top + height, left:left + width]
