"""Cut a data set out of PASCAL VOC by lists of image names, with smaller images."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import cv2

from mmkd.detection.data.annotation import read_split
from mmkd.errors import UserError

__all__ = ['cut_subset']

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
