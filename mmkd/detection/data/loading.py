"""Load images, or say which one cannot be loaded."""

import warnings

import numpy as np
from mmcv.transforms import LoadImageFromFile

from mmkd.errors import UserError
from mmkd.images import read_image
from mmkd.registry import TRANSFORMS

__all__ = ['LoadImage']


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """MMCV's ``LoadImageFromFile`` with an error that names the file.

    Takes its arguments and sets its keys: ``img`` (H x W x C, uint8 or float32),
    ``img_shape`` and ``ori_shape`` (H, W). With ``ignore_empty=True`` a training set replaces a
    broken image by another one.

    Where ``height`` and ``width`` of the annotation are not the image's, ``instances`` are clipped
    to the image and those outside it dropped, with a warning: ``RandomCenterCropPad`` would look
    for a box outside the image forever.
    """

    def transform(self, results: dict) -> dict | None:
        """Load ``results['img_path']``.

        Raises:
            UserError: If the image is missing, empty, cut off or not an image.
        """
        try:
            image = read_image(results['img_path'], self.color_type, self.imdecode_backend,
                               self.backend_args)
        except UserError:
            if self.ignore_empty:
                return None
            raise
        if self.to_float32:
            image = image.astype(np.float32)
        results['img'] = image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        _correct_size(results)
        return results


def _correct_size(results: dict) -> None:
    """Let the size of the image count where its annotation gives another one."""
    height, width = results['img_shape']
    given = results.get('height', height), results.get('width', width)
    if given == (height, width):
        return
    warnings.warn(f'{results["img_path"]} has {width} x {height} px and not {given[1]} x {given[0]}'
                  ' as its annotation says: its boxes are clipped to the image, check them.',
                  stacklevel=2)
    results.update(height=height, width=width)
    limits = (width - 1, height - 1) * 2
    clipped = [dict(instance, bbox=[min(max(corner, 0), limit) for corner, limit
                                    in zip(instance['bbox'], limits, strict=True)])
               for instance in results.get('instances', [])]
    results['instances'] = [instance for instance in clipped
                            if instance['bbox'][2] > instance['bbox'][0]
                            and instance['bbox'][3] > instance['bbox'][1]]
