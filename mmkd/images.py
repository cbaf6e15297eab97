"""Read an image file, or say why it cannot be read."""

import cv2
import mmcv
import numpy as np
from mmengine import fileio

from mmkd.errors import UserError

__all__ = ['read_image']


def read_image(path: str, flag: str = 'color', backend: str = 'cv2',
               backend_args: dict | None = None) -> np.ndarray:
    """Read an image file; the arguments are those of :func:`mmcv.imfrombytes`.

    OpenCV decodes the front of a JPEG or PNG that was cut off and leaves the rest grey without
    a word. Such a file is refused: its boxes would lie on grey.

    Returns:
        The uint8 image, H x W x 3 in BGR order for the default flag.

    Raises:
        UserError: If the file is missing, empty, cut off or not an image.
    """
    try:
        content = fileio.get(path, backend_args=backend_args)
    except OSError as error:
        raise UserError(f'The image {path} cannot be read ({error.strerror}): put it there or take '
                        'it out of the split.') from error
    what = 'is empty' if not content else 'is cut off' if _is_cut_off(content) else None
    if what is None:
        try:
            image = mmcv.imfrombytes(content, flag=flag, backend=backend)
        except (cv2.error, OSError):
            image = None
        if image is not None:
            return image
        what = 'does not decode as an image'
    raise UserError(f'The file {path} {what}: replace it or take it out of the split.')


def _is_cut_off(content: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end marker."""
    if content.startswith(b'\xff\xd8'):
        # An EXIF thumbnail ahead of the last scan has an end marker of its own.
        return content.find(b'\xff\xd9', max(content.rfind(b'\xff\xda'), 0)) < 0
    return content.startswith(b'\x89PNG') and b'IEND' not in content
