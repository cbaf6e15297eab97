"""Data sets of image files that a list names."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from mmkd.classification.data.folders import decode_images
from mmkd.classification.data.memory import MemoryDataset, balanced_first
from mmkd.errors import UserError, did_you_mean
from mmkd.registry import DATASETS

__all__ = ['ImageListInMemory']


@DATASETS.register_module()
class ImageListInMemory(MemoryDataset):
    """Images that a text file lists, decoded once and kept.

    A line has the path of an image from ``data_root``, a tab, and the name of its class.
    ``python tools/new.py`` writes such lists for a folder of images of your own.

    Args:
        data_root: folder of the list.
        ann_file: the list, from ``data_root``.
        metainfo: ``dict(classes=...)``, the names of the classes in their order.
        image_size: bring the shorter side to it and cut the centre out; None where all images
            have one size already.
        max_samples: use that many images, the first of every class; None for all.

    Raises:
        UserError: the list is missing or empty or has a line that is none, an image does not
            decode, or the images have several sizes and no ``image_size`` is given.
    """

    def __init__(self, data_root: str, ann_file: str, metainfo: Mapping[str, Sequence[str]],
                 image_size: int | None = None, max_samples: int | None = None) -> None:
        source = Path(data_root, ann_file)
        classes = tuple(metainfo['classes'])
        paths, labels = _read_list(source, classes)
        kept = balanced_first(labels, max_samples)
        images = decode_images([str(source.parent / paths[i]) for i in kept.tolist()], image_size)
        super().__init__(images, labels[kept], classes)


def _read_list(source: Path, classes: Sequence[str]) -> tuple[list[str], torch.Tensor]:
    try:
        lines = source.read_text(encoding='utf-8', errors='surrogateescape').split('\n')
    except OSError as error:
        raise UserError(f'The list {source} cannot be read ({error.strerror}): correct data_root '
                        'and ann_file, or make it with `python tools/new.py`.') from error
    numbers = {name: label for label, name in enumerate(classes)}
    rows = [line.split('\t') for line in lines if line]
    if not rows:
        raise UserError(f'The list {source} names no image: write a path, a tab and a class into '
                        'each line.')
    for number, row in enumerate(rows, 1):
        if len(row) != 2 or row[1] not in numbers:
            raise UserError(f'Line {number} of {source} is no path, tab and one of the classes '
                            f'{", ".join(classes[:20])}: correct it.'
                            f'{did_you_mean(row[-1], classes)}')
    return [row[0] for row in rows], torch.tensor([numbers[row[1]] for row in rows])
