"""Cut a data set out of PASCAL VOC by lists of images, with smaller ones; keep a part of labels."""

import hashlib
import os
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import cv2

from mmkd.detection.data.annotation import find_images, read_split
from mmkd.errors import UserError
from mmkd.files import written_atomically, written_folder

__all__ = ['cut_subset', 'keep_labels']

SPLITS = ('train', 'val', 'test')
CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')


def cut_subset(source: str | Path, lists: str | Path, out: str | Path,
               longer_side: int = 320) -> dict[str, int]:
    """Write the listed images with their boxes in VOC layout.

    Images are reduced by area until their longer side is ``longer_side``, boxes with them, to
    whole pixels. The flags `difficult` and `truncated` become 0: on such a subset every object
    counts. A file that is there is not made again.

    Args:
        source: a folder with ``JPEGImages`` and ``Annotations``, such as ``VOCdevkit/VOC2012``.
        lists: a folder with ``train.txt``, ``val.txt`` and ``test.txt``, a name in each line.
        out: the folder to make.
        longer_side: in pixels; smaller images stay as they are.

    Returns:
        the number of images of each split.

    Raises:
        UserError: a list, an image or an annotation is missing.
    """
    source, lists, out = Path(source), Path(lists), Path(out)
    names = {split: _names(lists / f'{split}.txt') for split in SPLITS}
    for name in (name for split in SPLITS for name in names[split]):
        for path in (_image(source, name), _annotation(source, name)):
            if not path.is_file():
                raise UserError(f"'{path}' is missing: name the folder of VOC 2012's trainval data "
                                '(python tools/prepare_voc.py extract)')
    for folder in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        for name in names[split]:
            _cut(source, out, name, longer_side)
        _write(out / f'ImageSets/Main/{split}.txt', names[split])
    _write(out / 'ImageSets/Main/trainval.txt', [*names['train'], *names['val']])
    return {split: len(names[split]) for split in SPLITS}


def keep_labels(root: str | Path, share: float, seed: int = 0) -> tuple[Path, Path]:
    """Choose a share of the training images, as if only these had labels.

    Writes ``ImageSets/Main/train_10.txt`` (of a share of 0.1) with the chosen names, and the other
    training images as hard links, or copies, into ``unlabelled_10``. Which are chosen depends on
    the names and the seed alone.

    Args:
        root: a folder in VOC layout, with ``ImageSets/Main/train.txt``.
        share: above 0 and below 1.
        seed: another one chooses others.

    Returns:
        the list and the folder.

    Raises:
        UserError: the share is none, list or folder are there already, or an image is missing.
    """
    if not 0 < share < 1:
        raise UserError(f'The share {share} leaves no images with labels, or none without: give a '
                        'number above 0 and below 1.')
    root, percent = Path(root), f'{100 * share:g}'
    chosen, folder = root / f'ImageSets/Main/train_{percent}.txt', root / f'unlabelled_{percent}'
    for path in (chosen, folder):
        if path.exists():
            raise UserError(f'{path} is there already and is not written anew: move it away.')
    images = find_images(root / 'JPEGImages')
    names = read_split(root / 'ImageSets/Main/train.txt')
    if missing := [name for name in names if name not in images]:
        raise UserError(f"{root / 'JPEGImages'} has no image '{missing[0]}' of train.txt: put it "
                        'there or take it out of the list.')
    names.sort(key=lambda name: hashlib.sha256(f'{seed}:{name}'.encode()).digest())
    count = max(1, round(share * len(names)))
    with written_folder(folder) as part:
        for name in names[count:]:
            _link(root / 'JPEGImages' / images[name], part / images[name])
    with written_atomically(chosen) as temporary:
        _write(temporary, sorted(names[:count]))
    return chosen, folder


def _link(source: Path, to: Path) -> None:
    try:
        os.link(source, to)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, to)


def _names(path: Path) -> list[str]:
    if not path.is_file():
        raise UserError(f"'{path}' is missing: name a folder that has train.txt, val.txt and "
                        'test.txt')
    return read_split(path)


def _image(folder: Path, name: str) -> Path:
    return folder / 'JPEGImages' / f'{name}.jpg'


def _annotation(folder: Path, name: str) -> Path:
    return folder / 'Annotations' / f'{name}.xml'


def _cut(source: Path, out: Path, name: str, longer_side: int) -> None:
    if _annotation(out, name).is_file():  # written last
        return
    image = cv2.imread(str(_image(source, name)))
    if image is None:
        raise UserError(f"'{_image(source, name)}' is no image: unpack the archive again")
    height, width = image.shape[:2]
    factor = min(1.0, longer_side / max(height, width))
    size = round(width * factor), round(height * factor)
    if factor < 1:
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(_image(out, name)), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
    tree = ElementTree.parse(_annotation(source, name))
    _scale(tree, size, factor)
    tree.write(_annotation(out, name))


def _scale(tree: ElementTree.ElementTree, size: tuple[int, int], factor: float) -> None:
    for tag, value in zip(('width', 'height'), size, strict=True):
        for element in tree.iterfind(f'size/{tag}'):
            element.text = str(value)
    for tag in ('difficult', 'truncated'):
        for element in tree.iterfind(f'object/{tag}'):
            element.text = '0'
    for tag in CORNERS:
        for element in tree.iterfind(f'object/bndbox/{tag}'):
            element.text = str(max(1, round(float(element.text) * factor)))


def _write(path: Path, names: Sequence[str]) -> None:
    path.write_text(''.join(f'{name}\n' for name in names))
