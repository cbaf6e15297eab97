"""MMDetection's augmentation, the same to rounding, in less time.

The transforms draw what MMDetection's draw, in the same order: from the same seeds come the same
boxes, and images that differ by float32's rounding. Images leave them as float32: a photograph that
is brightened beyond 255 or darkened below 0 is not clipped, neither here nor there.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from mmdet.datasets.transforms import (
    PackDetInputs,
    PhotoMetricDistortion,
    RandomCenterCropPad,
    RandomFlip,
)
from mmdet.structures.bbox import HorizontalBoxes, autocast_box_type

from mmkd.errors import UserError
from mmkd.registry import TRANSFORMS

__all__ = ['FastPackDetInputs', 'FastPhotoMetricDistortion', 'FastRandomCenterCropPad',
           'FastRandomFlip']

# Rows that are distorted at once: what they need stays in a core's cache.
_ROWS = 64


@TRANSFORMS.register_module()
class FastPhotoMetricDistortion(PhotoMetricDistortion):
    """MMDetection's ``PhotoMetricDistortion``, with its arguments and its draws.

    Brightness and contrast are one multiplication and addition; colours are turned to HSV and back
    only where saturation or hue is drawn, or where a value is below 0: MMDetection's way through
    HSV changes those. Everything a number of rows needs is done while they are in the cache.

    In front of a crop, ``FastRandomCenterCropPad(distortion=...)`` does the same with less work.
    """

    def transform(self, results: dict) -> dict:
        """Distort ``results['img']``, H x W x 3, uint8 or float32 in BGR order; give float32.

        Raises:
            UserError: If the image has not three channels.
        """
        image = results['img']
        results['img'] = np.empty(image.shape, np.float32)
        self.distort(image, results['img'], self.draw())
        return results

    def draw(self) -> tuple:
        """Draw what to do to one image."""
        return self._random_flags()

    def distort(self, image: np.ndarray, out: np.ndarray, drawn: tuple) -> None:
        """Write into ``out``, float32, what ``drawn`` makes of the image.

        Raises:
            UserError: If the image has not three channels.
        """
        if image.ndim != 3 or image.shape[2] != 3:
            raise UserError(f'The colours of an image of shape {image.shape} cannot be distorted: '
                            'load images with three channels or leave the distortion out.')
        (contrast_first, brighten, contrast, saturate, shift, swap,
         delta, gain, saturation, hue, order) = drawn
        delta = delta if brighten else 0.
        gain = gain if contrast else 1.
        before, after = (gain, 1.) if contrast_first else (1., gain)
        order = order if swap else np.arange(3)
        if saturate or shift or before < 0 or float(image.min()) + delta < 0:
            _distort_colours(image, out, delta, before, after, saturation if saturate else 1.,
                             hue if shift else 0., order)
        else:
            _distort_brightness(image, out, delta * before * after, before * after, order)


def _distort_brightness(image: np.ndarray, out: np.ndarray, offset: float, gain: float,
                        order: np.ndarray) -> None:
    """Channel c of ``out`` is gain * (channel order[c] of the image) + offset."""
    matrix = np.zeros((3, 4), np.float32)
    matrix[np.arange(3), order] = gain
    matrix[:, 3] = offset
    part = np.empty((min(_ROWS, len(image)), image.shape[1], 3), np.float32)
    for top in range(0, len(image), _ROWS):
        rows = image[top:top + _ROWS]
        part = part[:len(rows)]
        np.copyto(part, rows)
        cv2.transform(part, matrix, dst=out[top:top + _ROWS])


def _distort_colours(image: np.ndarray, out: np.ndarray, delta: float, before: float, after: float,
                     saturation: float, hue: float, order: np.ndarray) -> None:
    """Do everything that MMDetection does, HSV included."""
    width = image.shape[1]
    # One matrix for hue, saturation and, as the value, the contrast that comes after. OpenCV takes
    # hues from 0 to 720.
    matrix = np.zeros((3, 4), np.float32)
    matrix[np.arange(3), np.arange(3)] = 1, saturation, after
    matrix[0, 3] = hue % 360
    limits = np.empty((width, 3), np.float32)
    limits[:] = np.inf, 1, np.inf
    swapped = np.eye(3, dtype=np.float32)[order]
    one, two = np.empty((2, min(_ROWS, len(image)), width, 3), np.float32)
    for top in range(0, len(image), _ROWS):
        rows, target = image[top:top + _ROWS], out[top:top + _ROWS]
        one, two = one[:len(rows)], two[:len(rows)]
        np.copyto(one, rows)
        if delta:
            one += delta
        if before != 1:
            one *= before
        cv2.cvtColor(one, cv2.COLOR_BGR2HSV, dst=two)
        cv2.transform(two, matrix, dst=one)
        if saturation > 1:
            np.minimum(one, limits, out=one)
        if (order == np.arange(3)).all():
            cv2.cvtColor(one, cv2.COLOR_HSV2BGR, dst=target)
        else:
            cv2.cvtColor(one, cv2.COLOR_HSV2BGR, dst=two)
            cv2.transform(two, swapped, dst=target)


class _Crop(NamedTuple):
    """What is cut out of an image, and where it goes."""

    image: np.ndarray
    shape: tuple[int, int, int]
    patch: np.ndarray
    border: np.ndarray


@TRANSFORMS.register_module()
class FastRandomCenterCropPad(RandomCenterCropPad):
    """MMDetection's ``RandomCenterCropPad``, with its arguments, its draws and one more argument.

    MMDetection draws crops until one has the centre of a box inside, and makes each of them; here
    only the last one is made. The image may be uint8 or float32, the result is float32: its padding
    is exactly ``mean``, which the data preprocessor turns into 0.

    Args:
        distortion: Arguments of ``PhotoMetricDistortion``: does what that does in front of the
            crop, to the part of the photograph that the crop keeps. Without it nothing is
            distorted.
        **kwargs: Those of ``RandomCenterCropPad``.

    Raises:
        UserError: If there is a distortion in test mode.
    """

    def __init__(self, *args: Any, distortion: dict | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.test_mode and distortion is not None:
            raise UserError('FastRandomCenterCropPad has test_mode and a distortion: leave one of '
                            'them out.')
        self.distortion = None if distortion is None else FastPhotoMetricDistortion(**distortion)

    @autocast_box_type()
    def transform(self, results: dict) -> dict:
        """Crop and pad ``results['img']``, H x W x C, and its boxes.

        Raises:
            UserError: If the image has not the channels of ``mean``.
        """
        channels = results['img'].shape[2:]
        if channels != (len(self.mean),):
            raise UserError(f'RandomCenterCropPad has a mean of {len(self.mean)} numbers and got '
                            f'an image of shape {results["img"].shape}: give one number a channel.')
        drawn = None if self.distortion is None else self.distortion.draw()
        results = self._test_aug(results) if self.test_mode else self._train_aug(results)
        results['img'] = self._make(results['img'], drawn)
        return results

    def _train_aug(self, results: dict) -> dict:
        boxes = results['gt_bboxes']
        if (not isinstance(boxes, HorizontalBoxes)
                or 'gt_masks' in results or 'gt_seg_map' in results):
            return super()._train_aug(results)
        corners = boxes.tensor.numpy()
        crop, kept = self._search(results['img'], (corners[:, :2] + corners[:, 2:]) / 2)
        results['img'], results['img_shape'] = crop, crop.shape[:2]
        if kept is None:
            return results
        height, width, _ = crop.shape
        # From the image to the crop.
        shift = np.float32([crop.border[2] - crop.patch[0], crop.border[0] - crop.patch[1]] * 2)
        corners = corners[kept] + shift
        if self.bbox_clip_border:
            corners = corners.clip(0, np.float32([width, height] * 2))
        inside = (corners[:, :2] < (width, height)).all(1) & (corners[:, 2:] > 0).all(1)
        results['gt_bboxes'] = type(boxes)(torch.from_numpy(corners[inside]), clone=False)
        for key in ('gt_ignore_flags', 'gt_bboxes_labels'):
            if results.get(key) is not None:
                results[key] = results[key][kept][inside]
        return results

    def _search(self, image: np.ndarray, centers: np.ndarray) -> tuple[_Crop, np.ndarray | None]:
        """Draw crops until one has centres inside; say which, or nothing if there are none."""
        height, width = image.shape[:2]
        vertical, horizontal = (self._get_border(self.border, length) for length in (height, width))
        while True:
            ratio = np.random.choice(self.ratios)
            size = [int(length * ratio) for length in reversed(self.crop_size)]
            for _ in range(50):
                x = np.random.randint(low=horizontal, high=width - horizontal)
                y = np.random.randint(low=vertical, high=height - vertical)
                crop, _, patch = self._crop_image_and_paste(image, [y, x], size)
                if not len(centers):
                    return crop, None
                kept = ((centers > patch[:2]) & (centers < patch[2:])).all(1)
                if kept.any():
                    return crop, kept

    def _crop_image_and_paste(self, image: np.ndarray, center: list, size: list
                              ) -> tuple[_Crop, np.ndarray, np.ndarray]:
        # An image without channels has no pixels: MMDetection finds places for free.
        nothing, border, patch = super()._crop_image_and_paste(image[:, :, :0], center, size)
        shape = (*nothing.shape[:2], image.shape[2])
        return _Crop(image, shape, patch, border), border, patch

    def _make(self, crop: _Crop, drawn: tuple | None) -> np.ndarray:
        height, width, channels = crop.shape
        left, top, right, bottom = crop.patch
        source = crop.image[top:bottom, left:right]
        top, bottom, left, right = crop.border.astype(int)
        canvas = np.empty(crop.shape, np.float32)
        rows = canvas.reshape(height, width * channels)
        padding = np.tile(np.asarray(self.mean, np.float32), width)
        rows[:top] = rows[bottom:] = padding
        rows[top:bottom, :left * channels] = padding[:left * channels]
        rows[top:bottom, right * channels:] = padding[right * channels:]
        if drawn is None:
            canvas[top:bottom, left:right] = source
        else:
            self.distortion.distort(source, canvas[top:bottom, left:right], drawn)
        return canvas

    def __repr__(self) -> str:
        return f'{super().__repr__()[:-1]}, distortion={self.distortion})'


@TRANSFORMS.register_module()
class FastRandomFlip(RandomFlip):
    """MMDetection's ``RandomFlip``, whose image lies in memory in order: packing it costs less."""

    def _flip(self, results: dict) -> None:
        image = results['img']
        super()._flip(results)  # the image is now a view from the other end
        axis = {'horizontal': 1, 'vertical': 0, 'diagonal': -1}[results['flip_direction']]
        results['img'] = cv2.flip(image, axis).reshape(image.shape)


@TRANSFORMS.register_module()
class FastPackDetInputs(PackDetInputs):
    """MMDetection's ``PackDetInputs``, which lets OpenCV separate the channels."""

    def transform(self, results: dict) -> dict:
        """Pack the sample; ``inputs`` is (C, H, W)."""
        image = results.get('img')
        if image is not None and image.ndim == 3:
            planes = np.empty((image.shape[2], *image.shape[:2]), image.dtype)
            cv2.split(image, list(planes))
            results['img'] = planes.transpose(1, 2, 0)
        return super().transform(results)
