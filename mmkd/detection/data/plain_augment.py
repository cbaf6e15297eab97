"""MMDetection's own augmentation under the names of :mod:`mmkd.detection.data.fast_augment`.

That module calls private methods of MMDetection's transforms (:data:`PRIVATE`; checked with
onedl-mmdetection 3.5.1). Where a release lacks one of them, configs get these classes instead: the
same images but for rounding, in more time.
"""

from typing import Any

import numpy as np
from mmdet.datasets.transforms import PhotoMetricDistortion, RandomCenterCropPad

from mmkd.registry import TRANSFORMS

__all__ = ['PRIVATE', 'PlainPhotoMetricDistortion', 'PlainRandomCenterCropPad', 'lacking',
           'use_plain_transforms']

PRIVATE = {PhotoMetricDistortion: ('_random_flags', ),
           RandomCenterCropPad: ('_crop_image_and_paste', '_get_border', '_test_aug', '_train_aug')}


def lacking() -> list[str]:
    """Return the private methods that this MMDetection has not."""
    return [f'{kind.__name__}.{name}' for kind, names in PRIVATE.items() for name in names
            if name not in dir(kind)]


def use_plain_transforms() -> None:
    """Register MMDetection's own in place of the fast ones."""
    for name, kind in (('FastPhotoMetricDistortion', PlainPhotoMetricDistortion),
                       ('FastRandomCenterCropPad', PlainRandomCenterCropPad)):
        TRANSFORMS.register_module(name=name, module=kind, force=True)


class PlainPhotoMetricDistortion(PhotoMetricDistortion):
    """MMDetection's ``PhotoMetricDistortion``."""


class PlainRandomCenterCropPad(RandomCenterCropPad):
    """MMDetection's ``RandomCenterCropPad``, behind a distortion if there is one.

    Args:
        distortion: arguments of ``PhotoMetricDistortion``.
        **kwargs: those of ``RandomCenterCropPad``.
    """

    def __init__(self, *args: Any, distortion: dict | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.distortion = None if distortion is None else PhotoMetricDistortion(**distortion)

    def transform(self, results: dict) -> dict | None:
        """Distort, crop and pad ``results['img']``; give float32."""
        if self.distortion is not None:
            results = self.distortion(results)
        results['img'] = results['img'].astype(np.float32)
        return super().transform(results)
