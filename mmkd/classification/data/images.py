"""Decode an image file and bring it to a size."""

import math

import mmcv
import numpy as np
import torch
from torch import Tensor

from mmkd.images import read_image

__all__ = ['center_crop', 'random_resized_crop', 'read_rgb', 'to_tensor']


def read_rgb(path: str) -> np.ndarray:
    """Return the image in ``path``, H x W x 3 uint8 in RGB order.

    Raises:
        UserError: the file is missing, empty, cut off or not an image.
    """
    return np.ascontiguousarray(read_image(path)[..., ::-1])


def to_tensor(image: np.ndarray) -> Tensor:
    """Turn H x W x 3 into ``(3, H, W)``, in memory of its own."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def center_crop(image: np.ndarray, resize: int, size: int) -> np.ndarray:
    """Bring the shorter side to ``resize`` pixels and cut the central ``size`` x ``size`` out."""
    height, width = image.shape[:2]
    shorter = min(height, width)
    image = _resized(image, resize * width // shorter, resize * height // shorter)
    top, left = (round((side - size) / 2) for side in image.shape[:2])
    return image[top:top + size, left:left + size]


def random_resized_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Cut out a random part and stretch it to ``size`` x ``size``.

    The part has 8 to 100 % of the image's area, uniformly, and an aspect ratio from 3/4 to 4/3,
    uniformly in its logarithm. Where ten draws do not fit into the image, the part is the largest
    central one with a ratio in that range. Draws from PyTorch's generator.

    Source: C. Szegedy et al., Going Deeper with Convolutions, CVPR 2015, arXiv 1409.4842.
    """
    top, left, height, width = _random_part(*image.shape[:2])
    return _resized(image[top:top + height, left:left + width], size, size)


def _random_part(height: int, width: int) -> tuple[int, int, int, int]:
    """Return top, left, height and width."""
    for area, ratio in torch.rand(10, 2).tolist():
        area = (0.08 + 0.92 * area) * height * width
        ratio = math.exp((2 * ratio - 1) * math.log(4 / 3))
        part_width, part_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < part_width <= width and 0 < part_height <= height:
            top = int(torch.randint(height - part_height + 1, ()))
            left = int(torch.randint(width - part_width + 1, ()))
            return top, left, part_height, part_width
    part_width = min(width, round(height * 4 / 3))
    part_height = min(height, round(width * 4 / 3))
    return (height - part_height) // 2, (width - part_width) // 2, part_height, part_width


def _resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    if image.shape[:2] == (height, width):
        return image
    # Pillow's bilinear filter averages when it shrinks: what published ImageNet weights are
    # evaluated with.
    return mmcv.imresize(image, (width, height), interpolation='bilinear', backend='pillow')
