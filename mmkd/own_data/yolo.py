"""Read YOLO text: a ``.txt`` for each image, ``class x y width height`` in shares of the image."""

from pathlib import Path
from typing import Any

import yaml

from mmkd.own_data.folder import LISTS, Folder, read_text, split_of
from mmkd.own_data.photos import Box, Complaints, Found, Photo

__all__ = ['read_yolo']

MOST_CLASSES = 100_000
NAMES = ('classes.txt', 'obj.names', '_darknet.labels', 'labels.txt')


def read_yolo(folder: Folder, complaints: Complaints) -> Found | None:
    """Read all label files; None where there are none with a box.

    The names of the classes are those of a ``data.yaml`` (any YAML with ``names``) or of a
    ``classes.txt`` (``obj.names``); without either they are ``class_0``, ``class_1``, ...
    An image with an empty label file shows none of the objects.

    Args:
        folder: the files.
        complaints: what is wrong with single files is noted there.
    """
    labels = {path: read_text(folder.root / path) for path in folder.txts
              if path.name not in NAMES and path.name not in LISTS}
    labels = {path: text for path, text in labels.items()
              if folder.has_stem(path.stem) or _numbers(text.partition('\n')[0]) is not None}
    if not any(_numbers(line) for text in labels.values() for line in text.splitlines()):
        return None
    classes = _class_names(folder, complaints)
    listed = folder.listed_splits()
    photos: dict[Path, Photo] = {}
    for path, text in labels.items():
        image = folder.image_of(path)
        if image is None:
            complaints.add('annotations without an image, left out', path)
        elif image in photos:
            complaints.add('annotations of an image that has another one, left out', path)
        else:
            split = listed.get(image) or (None if listed else split_of(image) or split_of(path))
            photos[image] = Photo(image, _boxes(text, path, classes, complaints), split=split,
                                  relative=True)
    if not classes:
        found = {box.name for photo in photos.values() for box in photo.boxes}
        classes = sorted(found, key=lambda name: int(name.rpartition('_')[2]))
    return Found('YOLO text', list(photos.values()), classes)


def _class_names(folder: Folder, complaints: Complaints) -> list[str]:
    for path in folder.yamls:
        try:
            names = _names((yaml.safe_load(read_text(folder.root / path)) or {}).get('names'))
        # PyYAML itself raises the latter for dates and numbers that are none, and for deep nesting.
        except (yaml.YAMLError, AttributeError, ValueError, OverflowError, RecursionError):
            complaints.add('YAML files that cannot be read, left out', path)
            continue
        if names:
            return names
    for path in folder.txts:
        if path.name in NAMES:
            return [line.strip() for line in read_text(folder.root / path).splitlines()
                    if line.strip()]
    return []


def _names(said: Any) -> list[str]:
    """Return the classes by number, as a list or a dictionary says them.

    Raises:
        ValueError: it is neither, or has entries that are no names.
    """
    if said is None:
        return []
    if isinstance(said, list):
        said = dict(enumerate(said))
    if not isinstance(said, dict) or not all(
            type(number) is int and 0 <= number < MOST_CLASSES
            and isinstance(name, str | int | float) for number, name in said.items()):
        raise ValueError(said)
    return [str(said.get(i, f'class_{i}')).strip() for i in range(max(said, default=-1) + 1)]


def _boxes(text: str, path: Path, classes: list[str], complaints: Complaints) -> list[Box]:
    boxes = []
    for line in filter(str.strip, text.splitlines()):
        numbers = _numbers(line)
        if numbers is None or numbers[0] != int(numbers[0]):
            complaints.add('lines that are not `class x y width height`, left out', path)
            continue
        label = int(numbers[0])
        if label < 0 or (classes and label >= len(classes)):
            complaints.add(f'objects of a class number above {len(classes) - 1} or below 0, '
                           'left out', path)
            continue
        if len(numbers) == 6:
            complaints.add('lines with a sixth number (a score?), which is not used', path)
        name = classes[label] if classes else f'class_{label}'
        boxes.append(Box(name, _corners(numbers[1:])))
    return boxes


def _corners(numbers: list[float]) -> tuple[float, float, float, float]:
    """Return the corners of ``x y width height``, or around an outline ``x y x y x y ...``."""
    if len(numbers) <= 5:
        x, y, width, height = numbers[:4]
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    xs, ys = numbers[::2], numbers[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def _numbers(line: str) -> list[float] | None:
    """Return what a label line may have: 5 or 6 numbers, or an outline of three points or more."""
    try:
        numbers = [float(word) for word in line.split()]
    except ValueError:
        return None
    if len(numbers) in (5, 6) or (len(numbers) >= 7 and len(numbers) % 2 == 1):
        return numbers if all(abs(number) < 1e9 for number in numbers) else None
    return None
