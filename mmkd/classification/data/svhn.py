"""SVHN, format 2 (cropped digits)."""

from pathlib import Path

import numpy as np
import torch

from mmkd.classification.data.downloads import RemoteFile, obtain
from mmkd.classification.data.memory import MemoryDataset, checked_split
from mmkd.errors import UserError
from mmkd.registry import DATASETS

__all__ = ['SVHN']

ADDRESS = 'http://ufldl.stanford.edu/housenumbers'
MD5 = dict(train='e26dedcc434d2e4c54c9b2d4a06d8373', test='eb5a983be6a315427106f1b164d9cef3')


@DATASETS.register_module()
class SVHN(MemoryDataset):
    """Street View House Numbers: 73 257 training and 26 032 test images, 32 x 32, of 10 digits.

    Read from ``data_root/train_32x32.mat`` and ``test_32x32.mat``, downloaded where missing. The
    files call the digit 0 "10"; here class ``i`` is the digit ``i``.

    Source: Y. Netzer et al., Reading Digits in Natural Images with Unsupervised Feature Learning,
    NIPS workshop, 2011.

    Args:
        data_root: folder of the files.
        split: ``'train'`` or ``'test'``.
        max_samples: use that many images, the first of every class; None for all.

    Raises:
        UserError: the file is missing and cannot be downloaded or is damaged, or an argument is
            none of the above.
    """

    def __init__(self, data_root: str, split: str = 'train',
                 max_samples: int | None = None) -> None:
        name = f'{checked_split(split)}_32x32.mat'
        [path] = obtain(Path(data_root), [RemoteFile(name, f'{ADDRESS}/{name}', MD5[split])],
                        f'{data_root}/train_32x32.mat and {data_root}/test_32x32.mat')
        images, labels = _read(path)
        super().__init__(images, labels, [str(digit) for digit in range(10)], max_samples)


def _read(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    from scipy.io import loadmat  # only here: it takes half a second
    try:
        content = loadmat(path, variable_names=('X', 'y'))
        images, labels = content['X'], content['y'].reshape(-1).astype(np.int64)
    except Exception as error:  # A damaged file can fail in any way there is.
        raise UserError(f'{path} is damaged ({error}): put the official file there') from error
    if images.dtype != np.uint8 or images.shape != (32, 32, 3, len(labels)):
        raise UserError(f'{path} holds {images.dtype} images of shape {images.shape} and not '
                        f'uint8 of (32, 32, 3, {len(labels)}): put the official file there')
    labels[labels == 10] = 0
    return (torch.from_numpy(np.ascontiguousarray(images.transpose(3, 2, 0, 1))),
            torch.from_numpy(labels))
