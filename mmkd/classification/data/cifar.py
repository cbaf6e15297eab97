"""CIFAR-10 and CIFAR-100 in their official Python archives."""

import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from mmkd.classification.data.downloads import RemoteFile, obtain, warn_of_differences
from mmkd.classification.data.memory import MemoryDataset, checked_split
from mmkd.classification.data.pickles import load_arrays
from mmkd.errors import DAMAGED_ARCHIVE, UserError
from mmkd.registry import DATASETS

__all__ = ['CIFAR10', 'CIFAR100']


class _CIFAR(MemoryDataset):
    archive: ClassVar[RemoteFile]
    folder: ClassVar[str]
    checksums: ClassVar[dict[str, str]]
    batches: ClassVar[dict[str, tuple[str, ...]]]
    meta: ClassVar[str]
    labels_key: ClassVar[bytes]
    names_key: ClassVar[bytes]

    def __init__(self, data_root: str, split: str = 'train',
                 max_samples: int | None = None) -> None:
        names = self.batches[checked_split(split)]
        contents = self._contents(Path(data_root), (*names, self.meta))
        parts = [self._parse(contents[name], self._source(data_root, name)) for name in names]
        images = np.concatenate([part[0] for part in parts])
        labels = np.concatenate([part[1] for part in parts])
        classes = self._parse_names(contents[self.meta], self._source(data_root, self.meta))
        super().__init__(torch.from_numpy(images), torch.from_numpy(labels), classes, max_samples)

    @classmethod
    def _source(cls, data_root: str, name: str) -> str:
        return str(Path(data_root, cls.folder, name))

    @classmethod
    def _contents(cls, root: Path, names: Sequence[str]) -> dict[str, bytes]:
        """Read files of the folder or, where there is none, of the archive beside it."""
        layout = (f'{root}/{cls.folder}/ with {", ".join(cls.checksums)}, or '
                  f'{root}/{cls.archive.name}')
        folder = root / cls.folder
        if not folder.is_dir():
            [archive] = obtain(root, [cls.archive], layout)
            return _members(archive, [f'{cls.folder}/{name}' for name in names])
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise UserError(f'{folder} lacks {", ".join(missing)}: the expected layout is {layout}')
        warn_of_differences(folder, {name: cls.checksums[name] for name in names})
        return {name: (folder / name).read_bytes() for name in names}

    @classmethod
    def _parse(cls, content: bytes, source: str) -> tuple[np.ndarray, np.ndarray]:
        batch = load_arrays(content, source)
        pixels, labels = (_entry(batch, key, source) for key in (b'data', cls.labels_key))
        try:
            labels = np.asarray(labels, dtype=np.int64)
            fits = (pixels.dtype == np.uint8 and labels.ndim == 1
                    and pixels.shape == (len(labels), 3072))
        except (AttributeError, OverflowError, TypeError, ValueError):
            fits = False
        if not fits:
            raise UserError(f'{source} is no CIFAR batch, which has N x 3072 bytes and N labels: '
                            'put the official file there')
        return pixels.reshape(-1, 3, 32, 32), labels

    @classmethod
    def _parse_names(cls, content: bytes, source: str) -> list[str]:
        names = _entry(load_arrays(content, source), cls.names_key, source)
        try:
            return [str(name, 'utf-8') if isinstance(name, bytes) else str(name) for name in names]
        except (TypeError, UnicodeDecodeError) as error:
            raise UserError(f"{source} has no names of classes in '{cls.names_key.decode()}' "
                            f'({error}): put the official file there') from error


@DATASETS.register_module()
class CIFAR10(_CIFAR):
    """CIFAR-10: 50 000 training and 10 000 test images, 32 x 32, of 10 classes.

    Read from ``data_root/cifar-10-batches-py/`` (``data_batch_1`` .. ``data_batch_5``,
    ``test_batch``, ``batches.meta``) or else from ``data_root/cifar-10-python.tar.gz``, which is
    downloaded if it is not there.

    Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.

    Args:
        data_root: folder that holds the folder or the archive.
        split: ``'train'`` or ``'test'``.
        max_samples: use that many images, the first of every class; None for all.

    Raises:
        UserError: the data is missing and cannot be downloaded, a file is missing or damaged or
            asks to run code, or an argument is none of the above.
    """

    archive = RemoteFile('cifar-10-python.tar.gz',
                         'https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz',
                         'c58f30108f718f92721af3b95e74349a')
    folder = 'cifar-10-batches-py'
    checksums: ClassVar = {
        'data_batch_1': 'c99cafc152244af753f735de768cd75f',
        'data_batch_2': 'd4bba439e000b95fd0a9bffe97cbabec',
        'data_batch_3': '54ebc095f3ab1f0389bbae665268c751',
        'data_batch_4': '634d18415352ddfa80567beed471001a',
        'data_batch_5': '482c414d41f54cd18b22e5b47cb7c3cb',
        'test_batch': '40351d587109b95175f43aff81a1287e',
        'batches.meta': '5ff9c542aee3614f3951f8cda6e48888',
    }
    batches: ClassVar = dict(train=tuple(f'data_batch_{i}' for i in range(1, 6)),
                             test=('test_batch',))
    meta = 'batches.meta'
    labels_key, names_key = b'labels', b'label_names'


@DATASETS.register_module()
class CIFAR100(_CIFAR):
    """CIFAR-100: 50 000 training and 10 000 test images, 32 x 32, of 100 (fine) classes.

    Read from ``data_root/cifar-100-python/`` (``train``, ``test``, ``meta``) or else from
    ``data_root/cifar-100-python.tar.gz``, which is downloaded if it is not there. Source,
    arguments and errors: see :class:`CIFAR10`.
    """

    archive = RemoteFile('cifar-100-python.tar.gz',
                         'https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz',
                         'eb9058c3a382ffc7106e4002c42a8d85')
    folder = 'cifar-100-python'
    checksums: ClassVar = {
        'train': '16019d7e3df5f24257cddd939b257f8d',
        'test': 'f0ef6b0ae62326f3e7ffdfab6717acfc',
        'meta': '7973b15100ade9c7d40fb424638fde48',
    }
    batches: ClassVar = dict(train=('train',), test=('test',))
    meta = 'meta'
    labels_key, names_key = b'fine_labels', b'fine_label_names'


def _members(archive: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Read members of a tar file in one pass, by their base names; nothing is extracted."""
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isfile() and member.name in names:
                    contents[Path(member.name).name] = tar.extractfile(member).read()
    except DAMAGED_ARCHIVE as error:
        raise UserError(f'{archive} is damaged ({error}): delete it to have it downloaded '
                        'again, or put the official file there') from error
    missing = [name for name in names if Path(name).name not in contents]
    if missing:
        raise UserError(f'{archive} lacks {", ".join(missing)}: put the official file there')
    return contents


def _entry(loaded: dict[bytes | str, Any], key: bytes, source: str) -> Any:
    """Look ``key`` up; a file that Python 3 wrote has it as a string."""
    for candidate in (key, key.decode()):
        if candidate in loaded:
            return loaded[candidate]
    raise UserError(f"{source} has no '{key.decode()}': put the official file there")
