"""Fashion-MNIST in its official gzipped IDX files."""

import gzip
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from mmkd.classification.data.downloads import RemoteFile, obtain
from mmkd.classification.data.memory import MemoryDataset, checked_split
from mmkd.errors import DAMAGED_ARCHIVE, UserError
from mmkd.registry import DATASETS

__all__ = ['FashionMNIST']

ADDRESS = 'http://fashion-mnist.s3-website.eu-central-1.amazonaws.com'
FILES = dict(
    train={'train-images-idx3-ubyte.gz': '8d4fb7e6c68d591d4c3dfef9ec88bf0d',
           'train-labels-idx1-ubyte.gz': '25c81989df183df01b3e8a0aad5dffbe'},
    test={'t10k-images-idx3-ubyte.gz': 'bef4ecab320f06d8554ea6380940ec79',
          't10k-labels-idx1-ubyte.gz': 'bb300cfdad3c16e7a12a480ee83cd310'})
CLASSES = ('T-shirt/top', 'Trouser', 'Pullover', 'Dress', 'Coat', 'Sandal', 'Shirt', 'Sneaker',
           'Bag', 'Ankle boot')


@DATASETS.register_module()
class FashionMNIST(MemoryDataset):
    """Fashion-MNIST: 60 000 training and 10 000 test images of 10 kinds of clothing.

    The grey 28 x 28 images become RGB of 32 x 32, two black pixels on each side, so that the
    CIFAR networks take them. Read from ``data_root/train-images-idx3-ubyte.gz``,
    ``train-labels-idx1-ubyte.gz`` and the same with ``t10k``, downloaded where missing.

    Source: H. Xiao, K. Rasul, R. Vollgraf, Fashion-MNIST, 2017, arXiv 1708.07747.

    Args:
        data_root: folder of the files.
        split: ``'train'`` or ``'test'``.
        max_samples: use that many images, the first of every class; None for all.

    Raises:
        UserError: a file is missing and cannot be downloaded or is damaged, or an argument is
            none of the above.
    """

    def __init__(self, data_root: str, split: str = 'train',
                 max_samples: int | None = None) -> None:
        files = [RemoteFile(name, f'{ADDRESS}/{name}', md5)
                 for name, md5 in FILES[checked_split(split)].items()]
        pixels, labels = obtain(Path(data_root), files, ', '.join(
            f'{data_root}/{name}' for names in FILES.values() for name in names))
        images, numbers = _read_idx(pixels, (28, 28)), _read_idx(labels, ())
        if len(images) != len(numbers):
            raise UserError(f'{pixels} has {len(images)} images and {labels} {len(numbers)} '
                            'labels: put the official files there')
        super().__init__(F.pad(images, (2, 2, 2, 2))[:, None].repeat(1, 3, 1, 1),
                         numbers.long(), CLASSES, max_samples)


def _read_idx(path: Path, shape: tuple[int, ...]) -> torch.Tensor:
    """Read a gzipped IDX file of N x ``shape`` bytes.

    It starts with two zeros, the type (8 for bytes), the number of dimensions and each of them as
    a big-endian 32-bit integer.
    """
    try:
        content = gzip.decompress(path.read_bytes())
    except DAMAGED_ARCHIVE as error:
        raise UserError(f'{path} is damaged ({error}): put the official file there') from error
    head = 8 + 4 * len(shape)
    sizes = np.frombuffer(content[4:head], '>u4').tolist() if len(content) >= head else [-1]
    right = content[:4] == bytes((0, 0, 8, 1 + len(shape))) and tuple(sizes[1:]) == shape
    if not right or len(content) - head != sizes[0] * int(np.prod(shape)):
        raise UserError(f'{path} is no IDX file of N x {shape} bytes: put the official file there')
    values = np.frombuffer(content, np.uint8, offset=head).reshape(sizes[0], *shape)
    return torch.from_numpy(values.copy())
