"""TinyImageNet, and 100 of its classes at the size of CIFAR."""

import os
import shutil
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mmcv
import torch
from torch import Tensor

from mmkd.classification.data.downloads import (
    RemoteFile,
    download,
    on_main_process,
    warn_of_differences,
)
from mmkd.classification.data.folders import (
    ImageFolderInMemory,
    decode_images,
    list_classes,
    subfolders,
)
from mmkd.classification.data.images import read_rgb
from mmkd.classification.data.memory import SPLITS, MemoryDataset, balanced_first, checked_split
from mmkd.config_files import CARRIED
from mmkd.errors import DAMAGED_ARCHIVE, UserError
from mmkd.files import written_folder
from mmkd.registry import DATASETS
from mmkd.text_files import read_text

__all__ = ['TinyImageNet', 'TinyImageNet100', 'classes_of_100', 'make_tiny_imagenet100']


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
        paths, labels, classes = self.listed(data_root, split)
        kept = balanced_first(labels, max_samples)
        images = decode_images([paths[i] for i in kept.tolist()], None)
        super().__init__(images, labels[kept], classes)

    @classmethod
    def listed(cls, data_root: str | Path, split: str) -> tuple[list[str], Tensor, list[str]]:
        """Return the paths of the images, their labels and the names of the classes.

        Raises:
            UserError: as the class, but for the images, which are not read.
        """
        checked_split(split)
        on_main_process(lambda: cls._prepare(Path(data_root)))
        root = Path(data_root) / cls.folder
        classes = subfolders(root / 'train', f'{root}/train/<wnid>/images/*.JPEG')
        paths, labels = (list_classes(root / 'train', classes, 'images') if split == 'train'
                         else _validation(root, classes))
        return paths, labels, classes

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
class TinyImageNet100(ImageFolderInMemory):
    """100 classes of TinyImageNet at 32 x 32: 50 000 training and 5 000 test images.

    The size of CIFAR-100, but for half of its test images. Read from
    ``data_root/tiny_imagenet100_32px/{train,test}/<wnid>/*.png`` (or jpg), which
    :func:`make_tiny_imagenet100` writes. The classes are those of :func:`classes_of_100`; the test
    images are TinyImageNet's validation images.

    Args:
        data_root: folder that holds ``tiny_imagenet100_32px``.
        split: ``'train'`` or ``'test'``.
        max_samples: use that many images, the first of every class; None for all.

    Raises:
        UserError: the folder is missing or has other classes, an image does not decode, or an
            argument is none of the above.
    """

    folder = 'tiny_imagenet100_32px'

    def __init__(self, data_root: str, split: str = 'train',
                 max_samples: int | None = None) -> None:
        root = Path(data_root, self.folder)
        if not root.is_dir():
            raise UserError(f'{root} is missing: make it with `python '
                            f'tools/prepare_tiny_imagenet.py {data_root}`')
        super().__init__(str(root), split, max_samples=max_samples)
        if self.metainfo['classes'] != tuple(classes_of_100()):
            raise UserError(f'{root} has not the classes of {_LIST.name}: remove it, and make it '
                            f'anew with `python tools/prepare_tiny_imagenet.py {data_root}`')


_LIST = CARRIED / 'configs/_base_/classification/tiny_imagenet100.txt'


def classes_of_100() -> dict[str, str]:
    """Return what the 100 classes are called, by their WordNet number."""
    lines = _LIST.read_text(encoding='utf-8').splitlines()
    return dict(line.split('\t') for line in lines)


def make_tiny_imagenet100(data_root: str | Path) -> dict[str, int]:
    """Write what :class:`TinyImageNet100` reads, from what :class:`TinyImageNet` reads.

    Of 64 x 64 pixels each 2 x 2 become their mean (Pillow's box filter), written without loss. The
    folder appears at once and whole.

    Args:
        data_root: the folder of both.

    Returns:
        the number of images of each split.

    Raises:
        UserError: as :class:`TinyImageNet`; a class is missing, the folder is there already or
            cannot be written.
    """
    out = Path(data_root, TinyImageNet100.folder)
    if out.exists():
        raise UserError(f'{out} is there already: remove it to have it made anew')
    counts = {}
    try:
        with written_folder(out) as partial:
            for split in SPLITS:
                pairs = _chosen(*TinyImageNet.listed(data_root, split), partial / split)
                counts[split] = len(pairs)
                with ThreadPoolExecutor() as pool:
                    for _ in pool.map(_halve, *zip(*pairs, strict=True)):
                        pass  # An error in a thread comes up here.
    except OSError as error:
        raise UserError(f'{out} cannot be written ({error.strerror or error}): make room there') \
            from error
    return counts


def _chosen(paths: Sequence[str], labels: Tensor, classes: Sequence[str],
            folder: Path) -> list[tuple[Path, Path]]:
    """Return of each image of the 100 classes where it is and where it goes; make the folders."""
    wanted = classes_of_100()
    missing = [name for name in wanted if name not in classes]
    if missing:
        raise UserError(f'{TinyImageNet.folder} lacks {len(missing)} of the 100 classes (first: '
                        f'{missing[0]}): put the official files there')
    for name in wanted:
        (folder / name).mkdir(parents=True)
    return [(Path(path), folder / classes[label] / f'{Path(path).stem}.png')
            for path, label in zip(paths, labels.tolist(), strict=True) if classes[label] in wanted]


def _halve(source: Path, target: Path) -> None:
    image = mmcv.imresize(read_rgb(str(source)), (32, 32), interpolation='box', backend='pillow')
    if not mmcv.imwrite(image[..., ::-1], str(target)):
        raise OSError(f'{target.name} was not written')


def _validation(root: Path, classes: Sequence[str]) -> tuple[list[str], Tensor]:
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
