"""Data sets of image files, one folder for each class."""

import hashlib
import os
import shutil
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mmkd.classification.data.downloads import (
    RemoteFile,
    download,
    on_main_process,
    warn_of_differences,
)
from mmkd.classification.data.images import center_crop, random_resized_crop, read_rgb, to_tensor
from mmkd.classification.data.memory import MemoryDataset, balanced_first, checked_split
from mmkd.classification.data.structures import ClassificationSample
from mmkd.errors import DAMAGED_ARCHIVE, UserError
from mmkd.registry import DATASETS
from mmkd.text_files import read_text

__all__ = ['ImageFolderInMemory', 'ImageNetFolder', 'TinyImageNet', 'decode_images']

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
class TinyImageNet(MemoryDataset):
    """TinyImageNet: 100 000 training and 10 000 validation images, 64 x 64, of 200 classes.

    Read from ``data_root/tiny-imagenet-200/`` (``train/<wnid>/images/*.JPEG``, ``val/images/``
    and ``val/val_annotations.txt``); where that is missing, from
    ``data_root/tiny-imagenet-200.zip``, which is downloaded if need be and unpacked. The classes
    are the sorted names of the training folders; ``'test'`` is the validation set, since the
    labels of the test set are not public.

    Source: Y. Le, X. Yang, Tiny ImageNet Visual Recognition Challenge, 2015.

    Args:
        data_root: folder that holds the folder or the archive.
        split: ``'train'`` or ``'test'``.
        max_samples: use that many images, the first of every class; None for all.

    Raises:
        UserError: the data is missing and cannot be downloaded, a folder is missing, an image
            does not decode, or an argument is none of the above.
    """

    folder = 'tiny-imagenet-200'
    archive = RemoteFile('tiny-imagenet-200.zip',
                         'http://cs231n.stanford.edu/tiny-imagenet-200.zip',
                         '90528d7ca1a48142e341f4ef8d21d0de')

    def __init__(self, data_root: str, split: str = 'train',
                 max_samples: int | None = None) -> None:
        checked_split(split)
        on_main_process(lambda: self._prepare(Path(data_root)))
        root = Path(data_root) / self.folder
        classes = _subfolders(root / 'train', f'{root}/train/<wnid>/images/*.JPEG')
        paths, labels = (_list_classes(root / 'train', classes, 'images') if split == 'train'
                         else _tiny_val(root, classes))
        kept = balanced_first(labels, max_samples)
        images = decode_images([paths[i] for i in kept.tolist()], None)
        super().__init__(images, labels[kept], classes)

    @classmethod
    def _prepare(cls, root: Path) -> None:
        folder = root / cls.folder
        if folder.is_dir():
            return
        if (root / cls.archive.name).is_file():
            warn_of_differences(root, {cls.archive.name: cls.archive.md5})
        else:
            download(root, cls.archive, f'{folder}/{{train,val}} or {root / cls.archive.name}')
        _unpack(root / cls.archive.name, folder)


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
    classes = _subfolders(folder, layout)
    if (root / 'train').is_dir() and _subfolders(root / 'train', layout) != classes:
        raise UserError(f'{folder} and {root / "train"} have different class folders: the expected '
                        f'layout is {layout}')
    return *_list_classes(folder, classes), classes


def _subfolders(folder: Path, layout: str) -> list[str]:
    names = sorted(entry.name for entry in os.scandir(folder)
                   if entry.is_dir() and not entry.name.startswith('.')) if folder.is_dir() else []
    if not names:
        raise UserError(f'{folder} is missing or has no folder for each class in it: the expected '
                        f'layout is {layout}')
    return names


def _list_classes(folder: Path, classes: Sequence[str], inside: str = '') -> tuple[list[str],
                                                                                Tensor]:
    """List ``folder/<class>/<inside>/*`` class by class."""
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


def _tiny_val(root: Path, classes: Sequence[str]) -> tuple[list[str], Tensor]:
    """List the images of ``val_annotations.txt``: a file's name, a tab, its class, more."""
    source = root / 'val' / 'val_annotations.txt'
    numbers = {name: label for label, name in enumerate(classes)}
    rows = [line.split('\t') for line in
            read_text(source, 'put the official file there').splitlines()]
    wrong = [i for i, row in enumerate(rows, 1) if len(row) < 2 or row[1] not in numbers]
    if wrong or not rows:
        raise UserError(f'{source} has no file name and known class in line {(wrong or [1])[0]}: '
                        'put the official file there')
    return ([str(root / 'val' / 'images' / row[0]) for row in rows],
            torch.tensor([numbers[row[1]] for row in rows]))


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


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip file that holds ``folder``; it appears at once and whole."""
    partial = folder.with_name(f'{folder.name}.{os.getpid()}.partial')
    try:
        with zipfile.ZipFile(archive) as file:
            file.extractall(partial)
        (partial / folder.name).rename(folder)
    except DAMAGED_ARCHIVE as error:
        raise UserError(f'{archive} cannot be unpacked ({error}): put the official file there, or '
                        f'unpack it to {folder} yourself') from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
