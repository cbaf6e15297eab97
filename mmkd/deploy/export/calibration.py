"""Which images an int8 model is calibrated on."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmkd.deploy.device.sources import Sources, is_video
from mmkd.deploy.export.verify import Image
from mmkd.errors import UserError
from mmkd.registry import DATASETS

__all__ = ['calibration_images', 'draw_images', 'image_files']


def image_files(paths: Sequence[str | os.PathLike]) -> list[Path]:
    """Return the image files among ``paths`` and in the folders among them.

    Raises:
        UserError: If a path does not exist, or there is no image.
    """
    files = [file for file in Sources(paths).files if not is_video(file)]
    if not files:
        raise UserError('--images names videos alone and no image: name some')
    return files


def draw_images(images: Sequence[Image], count: int, seed: int = 0) -> list[Image]:
    """Draw ``count`` images, all where there are fewer, in the order in which they come.

    Raises:
        UserError: If ``count`` is below 1.
    """
    return [images[index] for index in _draw(len(images), count, seed)]


def _draw(length: int, count: int, seed: int) -> list[int]:
    if count < 1:
        raise UserError(f'--calibration is {count}: give the number of images, 1 or more')
    return sorted(np.random.default_rng(seed).permutation(length)[:count].tolist())


def calibration_images(cfg: Config, count: int = 100, seed: int = 0) -> list[Image]:
    """Draw images from the training data of a config, without augmentation.

    Args:
        cfg: Its ``train_dataloader`` is used and its test data never looked at.
        count: How many; all where there are fewer.
        seed: Of the draw.

    Returns:
        image files, or images ``(h, w, 3)`` uint8 in BGR order where the data set holds them.

    Raises:
        UserError: If ``count`` is below 1, or the config's training data is absent or of a kind
            that does not tell its images.
    """
    if cfg.get('train_dataloader') is None:
        raise UserError(f"config '{cfg.filename}' has no train_dataloader to calibrate on: give "
                        'images with --images')
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmkd')):
        try:
            dataset = DATASETS.build(cfg.train_dataloader.dataset)
        except FileNotFoundError as error:
            raise UserError(f"the training data set is incomplete, '{error.filename}' is missing: "
                            'put it there, or give images with --images') from error
    while not _is_source(dataset) and hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
    if not _is_source(dataset):
        raise UserError(f'the training data set is a {type(dataset).__name__}, which does not tell '
                        'its images: give some with --images')
    if not len(dataset):
        raise UserError('the training data set is empty, so there is nothing to calibrate on: '
                        'give images with --images')
    return [_image_of(dataset, index) for index in _draw(len(dataset), count, seed)]


def _is_source(dataset: Any) -> bool:
    return any(hasattr(dataset, name) for name in ('get_data_info', 'paths', 'images'))


def _image_of(dataset: Any, index: int) -> Image:
    if hasattr(dataset, 'get_data_info'):
        return dataset.get_data_info(index)['img_path']
    if hasattr(dataset, 'paths'):
        return str(dataset.paths[index])
    return np.ascontiguousarray(dataset.images[index].numpy()[::-1].transpose(1, 2, 0))
