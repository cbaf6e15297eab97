"""Write labels in PASCAL VOC layout, a file for each image, and COCO JSON of them all."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from mmkd.detection.data.annotation import IMAGE_SUFFIXES
from mmkd.errors import UserError
from mmkd.evaluation.voc_map import Detections
from mmkd.files import link_atomically, write_errors, written_atomically

__all__ = ['images_by_name', 'write_image', 'write_lists']

CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')


def images_by_name(folder: Path) -> dict[str, Path]:
    """Return the images of a folder, at any depth, by name: ``a__b`` for ``a/b.jpg``.

    Raises:
        UserError: there is no such folder, no image in it, or two images would have one name.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder '{folder}': correct the path")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob('*')):
        parts = path.relative_to(folder).with_suffix('').parts
        if path.suffix.lower() in IMAGE_SUFFIXES and not any(
                part.startswith(('.', '__MACOSX')) for part in parts):
            name = '__'.join(parts)
            if name in found:
                raise UserError(f"'{found[name]}' and '{path}' would both be '{name}': rename one")
            found[name] = path
    if not found:
        raise UserError(f"the folder '{folder}' holds no image: name one with "
                        f'{", ".join(IMAGE_SUFFIXES)} files, at any depth')
    return found


def write_image(out: Path, name: str, image: Path, size: tuple[int, int], found: Detections,
                classes: Sequence[str]) -> None:
    """Link an image into ``out`` and write its labels, which are there whole or not at all."""
    copy = out / 'JPEGImages' / f'{name}{image.suffix}'
    if not copy.exists():
        with write_errors(copy):
            copy.parent.mkdir(parents=True, exist_ok=True)
            link_atomically(image.resolve(), copy)
    root = ElementTree.Element('annotation')
    _add(root, filename=copy.name)
    _add(ElementTree.SubElement(root, 'size'), width=size[0], height=size[1], depth=3)
    limits = size * 2
    for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True):
        # VOC counts pixels from 1, and the data set takes that 1 off again.
        corners = [min(max(round(float(value)) + 1, 1), limit)
                   for value, limit in zip(box, limits, strict=True)]
        if corners[2] > corners[0] and corners[3] > corners[1]:
            one = ElementTree.SubElement(root, 'object')
            _add(one, name=classes[label], difficult=0, score=f'{score:.4f}')
            _add(ElementTree.SubElement(one, 'bndbox'), **dict(zip(CORNERS, corners, strict=True)))
    ElementTree.indent(root)
    with written_atomically(out / 'Annotations' / f'{name}.xml') as temporary:
        ElementTree.ElementTree(root).write(temporary, encoding='utf-8')


def write_lists(out: Path, images: Mapping[str, Path], classes: Sequence[str]) -> Counter:
    """Write ``ImageSets/Main/train.txt`` and ``annotations.json`` of what was labelled.

    Returns:
        the boxes of each class.
    """
    names = [name for name in images if (out / 'Annotations' / f'{name}.xml').exists()]
    with written_atomically(out / 'ImageSets/Main/train.txt') as temporary:
        temporary.write_text(''.join(f'{name}\n' for name in names), encoding='utf-8')
    counts: Counter = Counter()
    with written_atomically(out / 'annotations.json') as temporary, temporary.open(
            'w', encoding='utf-8') as file:
        categories = [dict(id=i, name=name) for i, name in enumerate(classes, 1)]
        file.write(f'{{"categories": {json.dumps(categories)},\n"images": [')
        _write(file, (dict(id=i, file_name=root.findtext('filename'), **_size(root))
                      for i, root in _read(out, names)))
        file.write('],\n"annotations": [')
        _write(file, _annotations(out, names, classes, counts))
        file.write(']}\n')
    return counts


def _read(out: Path, names: Sequence[str]) -> Iterator[tuple[int, ElementTree.Element]]:
    for number, name in enumerate(names, 1):
        yield number, ElementTree.parse(out / 'Annotations' / f'{name}.xml').getroot()


def _size(root: ElementTree.Element) -> dict[str, int]:
    return {tag: int(root.findtext(f'size/{tag}')) for tag in ('width', 'height')}


def _annotations(out: Path, names: Sequence[str], classes: Sequence[str],
                 counts: Counter) -> Iterator[dict]:
    for image, root in _read(out, names):
        for node in root.iter('object'):
            counts[name := node.findtext('name')] += 1
            x1, y1, x2, y2 = (int(node.findtext(f'bndbox/{tag}')) - 1 for tag in CORNERS)
            yield dict(id=counts.total(), image_id=image, category_id=classes.index(name) + 1,
                       bbox=[x1, y1, x2 - x1, y2 - y1], area=(x2 - x1) * (y2 - y1), iscrowd=0,
                       score=float(node.findtext('score')))


def _write(file: 'object', entries: Iterator[dict]) -> None:
    for number, entry in enumerate(entries):
        file.write((',\n' if number else '\n') + json.dumps(entry))


def _add(node: ElementTree.Element, **texts: object) -> None:
    for tag, text in texts.items():
        ElementTree.SubElement(node, tag).text = str(text)
