"""Data sets of image files, one folder for each class."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mmkd.classification.data.images import center_crop, random_resized_crop, read_rgb, to_tensor
from mmkd.classification.data.memory import MemoryDataset, balanced_first, checked_split
from mmkd.classification.data.structures import ClassificationSample
from mmkd.errors import UserError
from mmkd.registry import DATASETS

__all__ = ['ImageFolderInMemory', 'ImageNetFolder', 'decode_images', 'list_classes', 'subfolders']

SUFFIXES = ('.jpg', '.jpeg', '.png')


@DATASETS.register_module()
class ImageFolderInMemory(MemoryDataset):
    """Any folders ``data_root/<split>/<class>/*.jpg`` (or png), decoded once and kept.

    The classes are the sorted names of the folders.

    Args:
        data_root: folder that holds ``train`` and ``test`` (or ``val``).
        split: ``'train'`` or ``'test'``.
        image_size: bring the shorter side to it and cut the centre out; None where all images
            have one size already.
        max_samples: use that many images, the first of every class; None for all.

    Raises:
        UserError: a folder is missing or empty, an image does not decode, the images have
            several sizes and no ``image_size`` is given, or an argument is none of the above.
    """

    def __init__(self, data_root: str, split: str = 'train', image_size: int | None = None,
                 max_samples: int | None = None) -> None:
        test = 'test' if Path(data_root, 'test').is_dir() else 'val'
        paths, labels, classes = _class_folders(data_root, split, test)
        kept = balanced_first(labels, max_samples)
        images = decode_images([paths[i] for i in kept.tolist()], image_size)
        super().__init__(images, labels[kept], classes)


@DATASETS.register_module()
class ImageNetFolder(Dataset):
    """ImageNet (ILSVRC 2012): 1 281 167 training and 50 000 validation images of 1000 classes.

    Read from ``data_root/train/<wnid>/*.JPEG`` and ``data_root/val/<wnid>/*.JPEG``; the classes
    are the sorted names of the folders, which is the order of the published weights. Images are
    decoded when they are asked for, so give the loader workers::

        train_dataloader = dict(
            batch_size=64, num_workers=8, dataset=dict(type='ImageNetFolder', data_root='...'),
            sampler=dict(type='DefaultSampler', shuffle=True), collate_fn=dict(type='whole_batch'))

    Training images are cut out and resized at random (see
    :func:`~mmkd.classification.data.images.random_resized_crop`) to ``image_size``, test images
    have their shorter side brought to 8/7 of it and the centre cut out (256 and 224 pixels).
    ``BatchPreprocessor(crop_padding=0)`` flips and normalises the batch on the device.

    Source: O. Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 2015,
    arXiv 1409.0575.

    Args:
        data_root: folder that holds ``train`` and ``val``.
        split: ``'train'`` or ``'test'`` (the validation images).
        max_samples: use that many images, the first of every class; None for all.
        image_size: side of the images.

    Attributes:
        labels: ``(N,)``, int64.
        metainfo: ``dict(classes=...)``.

    Raises:
        UserError: a folder is missing or empty, or an argument is none of the above; when an
            image is asked for: it does not decode.
    """

    def __init__(self, data_root: str, split: str = 'train', max_samples: int | None = None,
                 image_size: int = 224) -> None:
        # A folder `test` beside them would be the images without labels.
        paths, labels, classes = _class_folders(data_root, split, 'val')
        kept = balanced_first(labels, max_samples)
        # One array: a list of a million strings would be copied into every worker, page by page.
        self.paths = np.array(paths)[kept.numpy()]
        self.labels = labels[kept]
        self.metainfo = dict(classes=tuple(classes))
        self.training = split == 'train'
        self.image_size = image_size

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the batch that holds the one image ``index``."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Any]:
        """Return the batch of ``indices``: uint8 ``inputs`` and a sample, as MemoryDataset's."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return dict(inputs=torch.stack([self._image(index) for index in indices]),
                    data_samples=ClassificationSample(labels=self.labels[chosen], indices=chosen))

    def identity(self) -> str:
        """Return a hash of the files' names and sizes and of the labels."""
        sums = hashlib.sha256(self.labels.numpy())
        for path in self.paths:
            file = Path(path)
            sums.update(f'{file.parent.name}/{file.name} {file.stat().st_size}\n'.encode())
        return sums.hexdigest()

    def _image(self, index: int) -> Tensor:
        image = read_rgb(str(self.paths[index]))
        if self.training:
            return to_tensor(random_resized_crop(image, self.image_size))
        return to_tensor(center_crop(image, self.image_size * 8 // 7, self.image_size))


def _class_folders(data_root: str, split: str, test: str) -> tuple[list[str], Tensor, list[str]]:
    """List ``train/<class>/*`` or ``<test>/<class>/*``: paths, labels, names of the classes."""
    root = Path(data_root)
    folder = root / (test if checked_split(split) == 'test' else split)
    layout = f'{root}/train/<class>/*.jpg and {root}/{test}/<class>/*.jpg'
    classes = subfolders(folder, layout)
    if (root / 'train').is_dir() and subfolders(root / 'train', layout) != classes:
        raise UserError(f'{folder} and {root / "train"} have different class folders: the expected '
                        f'layout is {layout}')
    return *list_classes(folder, classes), classes


def subfolders(folder: Path, layout: str) -> list[str]:
    """Return the sorted names of the folders in ``folder``.

    Raises:
        UserError: there is none; says the expected ``layout``.
    """
    names = sorted(entry.name for entry in os.scandir(folder)
                   if entry.is_dir() and not entry.name.startswith('.')) if folder.is_dir() else []
    if not names:
        raise UserError(f'{folder} is missing or has no folder for each class in it: the expected '
                        f'layout is {layout}')
    return names


def list_classes(folder: Path, classes: Sequence[str],
                 inside: str = '') -> tuple[list[str], Tensor]:
    """List the images ``folder/<class>/<inside>/*`` class by class: paths and labels.

    Raises:
        UserError: a class has no image.
    """
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        own = folder / name / inside
        files = sorted(entry.path for entry in os.scandir(own)
                       if entry.name.lower().endswith(SUFFIXES)
                       and not entry.name.startswith('.')) if own.is_dir() else []
        if not files:
            raise UserError(f'{own} has no image (jpg, jpeg or png): put the images of class '
                            f"'{name}' there")
        paths += files
        labels += [label] * len(files)
    return paths, torch.tensor(labels)


def decode_images(paths: Sequence[str], image_size: int | None) -> Tensor:
    """Decode image files into one ``(N, 3, H, W)``, uint8.

    Args:
        paths: the files.
        image_size: bring the shorter side to it and cut the centre out; None for images of one
            size.

    Raises:
        UserError: one does not decode, or has another size than the first.
    """
    def read(path: str) -> Tensor:
        image = read_rgb(path)
        return to_tensor(image if image_size is None
                         else center_crop(image, image_size, image_size))

    shape = read(paths[0]).shape
    images = torch.empty(len(paths), *shape, dtype=torch.uint8)

    def put(place: int) -> None:
        image = read(paths[place])
        if image.shape != shape:
            raise UserError(f'{paths[place]} has {image.shape[2]} x {image.shape[1]} px and '
                            f'{paths[0]} has {shape[2]} x {shape[1]}: give `image_size`, or bring '
                            'the images to one size')
        images[place] = image

    with ThreadPoolExecutor() as pool:  # The decoders let go of the interpreter's lock.
        for _ in pool.map(put, range(len(paths))):
            pass  # An error in a thread comes up here.
    return images
