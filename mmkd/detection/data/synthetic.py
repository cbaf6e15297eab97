"""Draw a small, hard detection data set in PASCAL VOC layout."""

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np

from mmkd.detection.data.drawing import DRAWN_CLASSES, DrawnObject, draw_image, voc_box
from mmkd.errors import UserError
from mmkd.files import written_folder

__all__ = ['DRAWN_CLASSES', 'DRAWN_SPLITS', 'draw_dataset']

DRAWN_SPLITS: Mapping[str, int] = {'train': 320, 'val': 160, 'test': 400}

# Raise it whenever the same parameters would draw other pixels: old sets are then not reused.
_VERSION = 2
_RECORD = 'drawn.json'


def draw_dataset(root: str | os.PathLike, *, seed: int = 0,
                 splits: Mapping[str, int] = DRAWN_SPLITS, image_size: int = 128) -> Path:
    """Draw shapes of :data:`DRAWN_CLASSES` on textured backgrounds, or reuse what was drawn.

    An image holds 1 to 6 objects of 8 px to half its side, turned, stretched and in any colour,
    among strokes that belong to no class. Most, not all, wear the surface pattern of their class.
    They overlap and are cut by the border; what is more than half hidden or hardly stands out from
    its surroundings is ``difficult``.
    Boxes are tight around what can be seen: 1-based, inclusive integer pixels as in VOC.

    The same arguments (and versions of NumPy and OpenCV) give the same files byte for byte, and
    an image depends on nothing but the seed, the image size, its split's name and its number. The
    set is drawn in a folder beside ``root`` and renamed when it is whole.

    Args:
        root: Folder to make, with ``JPEGImages``, ``Annotations`` and ``ImageSets/Main``.
        seed: Any integer from 0.
        splits: Number of images of each split; ``trainval`` is made from ``train`` and ``val``.
        image_size: Side of the square images in pixels, from 32.

    Returns:
        ``root``.

    Raises:
        UserError: If an argument is out of range, or ``root`` exists and holds something else.
    """
    root = Path(root)
    parameters = dict(version=_VERSION, seed=seed, splits=dict(splits), image_size=image_size)
    _check_parameters(**parameters)
    if _is_drawn(root, parameters):
        return root
    try:
        with written_folder(root) as part:
            _draw_into(part, seed, splits, image_size)
            (part / _RECORD).write_text(json.dumps(parameters, indent=2) + '\n')
    except OSError:
        if not _is_drawn(root, parameters):  # else another process was faster with the same set
            raise
    return root


def _check_parameters(version: int, seed: int, splits: dict[str, int], image_size: int) -> None:
    if seed < 0:
        raise UserError(f'The seed of a drawn data set is {seed}: give an integer from 0.')
    if image_size < 32:
        raise UserError(f'The drawn images would have {image_size} px: give image_size from 32.')
    bad = [f'{name}={count}' for name, count in splits.items()
           if name not in DRAWN_SPLITS or count < 1]
    if bad or not splits:
        raise UserError(f"Cannot draw the splits '{', '.join(bad)}': give at least one image to "
                        f'any of {", ".join(DRAWN_SPLITS)}.')


def _is_drawn(root: Path, parameters: dict) -> bool:
    """Whether ``root`` holds exactly this set; False if it is free to be made."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    record = root / _RECORD
    if not record.is_file():
        raise UserError(f'{root} exists and is no drawn data set: name another folder.')
    found = json.loads(record.read_text())
    if found != parameters:
        raise UserError(f'{root} was drawn with {found} and not with {parameters}: '
                        'remove it or name another folder.')
    return True


def _draw_into(folder: Path, seed: int, splits: Mapping[str, int], image_size: int) -> None:
    lists = folder / 'ImageSets' / 'Main'
    for made in (folder / 'JPEGImages', folder / 'Annotations', lists):
        made.mkdir(parents=True)
    ids = {split: [f'{split}_{i:05d}' for i in range(count)] for split, count in splits.items()}
    for split, names in ids.items():
        for i, name in enumerate(names):
            child = np.random.SeedSequence(seed, spawn_key=(zlib.crc32(split.encode()), i))
            image, objects = draw_image(np.random.default_rng(child), image_size)
            encoded = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
            (folder / 'JPEGImages' / f'{name}.jpg').write_bytes(encoded.tobytes())
            (folder / 'Annotations' / f'{name}.xml').write_bytes(
                _annotation(name, image_size, objects))
    ids['trainval'] = ids.get('train', []) + ids.get('val', [])
    for split, names in ids.items():
        if names:
            (lists / f'{split}.txt').write_text('\n'.join(names) + '\n')


def _annotation(name: str, size: int, objects: list[DrawnObject]) -> bytes:
    root = ElementTree.Element('annotation')

    def add(parent: ElementTree.Element, tag: str, text: object = '') -> ElementTree.Element:
        child = ElementTree.SubElement(parent, tag)
        child.text = str(text)
        return child

    add(root, 'filename', f'{name}.jpg')
    shape = add(root, 'size')
    for tag, value in (('width', size), ('height', size), ('depth', 3)):
        add(shape, tag, value)
    for drawn in objects:
        node = add(root, 'object')
        add(node, 'name', drawn.name)
        for tag in ('truncated', 'occluded', 'difficult'):
            add(node, tag, int(getattr(drawn, tag)))
        box = add(node, 'bndbox')
        for tag, value in zip(('xmin', 'ymin', 'xmax', 'ymax'), voc_box(drawn.visible),
                              strict=True):
            add(box, tag, value)
    ElementTree.indent(root)
    return ElementTree.tostring(root) + b'\n'
