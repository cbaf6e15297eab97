"""Read the XML annotations and split lists of PASCAL VOC layout."""

import os
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from mmkd.errors import UserError
from mmkd.text_files import read_text

__all__ = ['IMAGE_SUFFIXES', 'VOCAnnotation', 'VOCObject', 'find_images', 'read_annotation',
           'read_split']

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png')
MOST_PIXELS = 10**9


@dataclass(frozen=True)
class VOCObject:
    """One object: ``box`` is (xmin, ymin, xmax, ymax) in whole pixels as written, 1-based."""

    name: str
    box: tuple[int, int, int, int]
    difficult: bool

    @property
    def is_empty(self) -> bool:
        """Whether the box has no width or no height."""
        xmin, ymin, xmax, ymax = self.box
        return xmax <= xmin or ymax <= ymin

    @property
    def is_reversed(self) -> bool:
        """Whether the corners are swapped, so that the box is mirrored or upside down."""
        xmin, ymin, xmax, ymax = self.box
        return xmax < xmin or ymax < ymin


@dataclass(frozen=True)
class VOCAnnotation:
    """One annotation file: ``size`` is (width, height) in pixels, None where it is not given."""

    size: tuple[int, int] | None
    objects: tuple[VOCObject, ...]


def read_annotation(path: str | os.PathLike) -> VOCAnnotation:
    """Parse an annotation file; fractions of a pixel are cut off as in MMDetection.

    Raises:
        FileNotFoundError: If there is no such file.
        UserError: If it cannot be read as XML or lacks a name, a box or a number.
    """
    try:
        root = ElementTree.parse(path).getroot()
        objects = tuple(_read_object(node) for node in root.findall('object'))
        size = _read_size(root.find('size'))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f'The annotation {path} cannot be read ({error.strerror}): put a file '
                        'there or take its image out of the split.') from error
    # A LookupError: the encoding that its first line names is not known.
    except (ElementTree.ParseError, LookupError, ValueError, OverflowError) as error:
        raise UserError(f'The annotation {path} is not valid: {error}; repair it or take its image '
                        'out of the split.') from error
    return VOCAnnotation(size, objects)


def read_split(path: str | os.PathLike) -> list[str]:
    """Return the image names that a split file lists, one a line.

    Raises:
        UserError: If the file is missing, no UTF-8 text or lists nothing.
    """
    if not os.path.isfile(path):
        raise UserError(f'The split file {path} does not exist: check data_root and ann_file, or '
                        "make it with 'tools/prepare_voc.py split'.")
    lines = read_text(path, 'write one image name a line, without suffix.').splitlines()
    names = [name for line in lines if (name := line.strip())]
    if not names:
        raise UserError(f'The split file {path} lists no image: write one image name a line, '
                        'without suffix.')
    return names


def find_images(folder: str | os.PathLike) -> dict[str, str]:
    """Map the name of every image in a folder to its file name, ``{'000005': '000005.jpg'}``.

    One listing of the folder replaces thousands of looks for one file each. Where several
    suffixes exist for a name, the first of :data:`IMAGE_SUFFIXES` counts.
    """
    if not Path(folder).is_dir():
        return {}
    found: dict[str, tuple[int, str]] = {}
    for file_name in sorted(os.listdir(folder)):
        stem, suffix = os.path.splitext(file_name)
        if suffix.lower() in IMAGE_SUFFIXES:
            candidate = (IMAGE_SUFFIXES.index(suffix.lower()), file_name)
            found[stem] = min(candidate, found.get(stem, candidate))
    return {stem: file_name for stem, (_, file_name) in found.items()}


def _read_size(node: ElementTree.Element | None) -> tuple[int, int] | None:
    if node is None:
        return None
    width, height = (_pixels(node.findtext(tag) or '0') for tag in ('width', 'height'))
    # Some labelling tools write 0 for an image they never opened.
    return (width, height) if width > 0 and height > 0 else None


def _read_object(node: ElementTree.Element) -> VOCObject:
    name = (node.findtext('name') or '').strip()
    if not name:
        raise ValueError('an object has no name')
    corners = [node.findtext(f'bndbox/{tag}') for tag in ('xmin', 'ymin', 'xmax', 'ymax')]
    if None in corners:
        raise ValueError(f"an object '{name}' has no complete bndbox")
    xmin, ymin, xmax, ymax = map(_pixels, corners)
    difficult = int(node.findtext('difficult') or 0) != 0
    return VOCObject(name, (xmin, ymin, xmax, ymax), difficult)


def _pixels(text: str) -> int:
    pixels = int(float(text))
    if abs(pixels) > MOST_PIXELS:
        raise ValueError(f'{text} is no number of pixels')
    return pixels
