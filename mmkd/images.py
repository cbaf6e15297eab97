"""Read an image file of a data set, or say why it cannot be read.

What a device needs of images, without mmcv, is :mod:`mmkd.deploy.device.images`, and here, too.
"""

import cv2
import numpy as np

from mmkd.deploy.device.images import damage, load_image, resize_antialiased
from mmkd.errors import UserError

__all__ = ['load_image', 'read_image', 'resize_antialiased']


def read_image(path: str, flag: str = 'color', backend: str = 'cv2',
               backend_args: dict | None = None) -> np.ndarray:
    """Read an image file of a data set; the arguments are those of :func:`mmcv.imfrombytes`.

    OpenCV decodes the front of a JPEG or PNG that was cut off and leaves the rest grey without
    a word. Such a file is refused: its boxes would lie on grey.

    Returns:
        The uint8 image, H x W x 3 in BGR order for the default flag.

    Raises:
        UserError: If the file is missing, empty, cut off or not an image.
    """
    import mmcv
    from mmengine import fileio

    try:
        content = fileio.get(path, backend_args=backend_args)
    # The latter two: a list named what is no path.
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f'The image {path} cannot be read ({getattr(error, "strerror", error)}): '
                        'put it there or take it out of the split.') from error
    what = damage(content)
    if what is None:
        try:
            image = mmcv.imfrombytes(content, flag=flag, backend=backend)
        except (cv2.error, OSError):
            image = None
        if image is not None:
            return image
        what = 'does not decode as an image'
    raise UserError(f'The file {path} {what}: replace it or take it out of the split.')
