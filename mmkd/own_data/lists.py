"""Write which photographs belong to which split, with their boxes or classes."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from mmkd.files import written_atomically
from mmkd.own_data.photos import Found, Photo
from mmkd.own_data.splits import SPLITS

__all__ = ['write_lists']


def write_lists(found: Found, root: Path, out: Path, classes: Sequence[str]) -> None:
    """Write a list of each split into ``out``; the photographs stay where they are.

    A detector's are COCO JSON, ``annotations/instances_train.json`` and so on, so that ``out`` is a
    folder in COCO layout (``mmkd train CONFIG --data out``). A classifier's are ``train.txt``
    and so on, with a path, a tab and a class in each line. Paths are from ``out``.

    Args:
        found: what :mod:`mmkd.own_data.check` and :mod:`~mmkd.own_data.splits` left.
        root: the folder of the photographs.
        out: the folder to write to.
        classes: their names in order.

    Raises:
        UserError: something cannot be written.
    """
    to_root = os.path.relpath(root.resolve(), out.resolve())
    for split in SPLITS:
        photos = sorted((photo for photo in found.photos if photo.split == split),
                        key=lambda photo: str(photo.path))
        names = [Path(to_root, photo.path).as_posix() for photo in photos]
        if found.is_classified:
            path = out / f'{split}.txt'
            text = ''.join(f'{name}\t{photo.label}\n'
                           for name, photo in zip(names, photos, strict=True))
        else:
            path = out / 'annotations' / f'instances_{split}.json'
            text = json.dumps(_coco(photos, names, classes))
        with written_atomically(path) as temporary:
            temporary.write_text(text, encoding='utf-8', errors='surrogateescape')


def _coco(photos: Sequence[Photo], names: Sequence[str], classes: Sequence[str]) -> dict:
    numbers = {name: number for number, name in enumerate(classes, 1)}
    images, annotations = [], []
    for image_id, (photo, name) in enumerate(zip(photos, names, strict=True), 1):
        images.append(dict(id=image_id, file_name=name, width=photo.size[0],
                           height=photo.size[1]))
        for box in photo.boxes:
            x1, y1, x2, y2 = box.corners
            annotations.append(dict(
                id=len(annotations) + 1, image_id=image_id, category_id=numbers[box.name],
                bbox=[x1, y1, x2 - x1, y2 - y1], area=(x2 - x1) * (y2 - y1),
                iscrowd=int(box.ignored)))
    return dict(info=dict(description='written by `mmkd new`'), images=images,
                annotations=annotations,
                categories=[dict(id=number, name=name) for name, number in numbers.items()])
