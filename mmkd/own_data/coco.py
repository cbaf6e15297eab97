"""Read COCO JSON: one file, or one for each split."""

import json
from pathlib import Path
from typing import Any

from mmkd.errors import UserError
from mmkd.own_data.folder import Folder, split_in_name, split_of
from mmkd.own_data.photos import Box, Complaints, Found, Photo

__all__ = ['read_coco']

PARTS = ('images', 'annotations', 'categories')


def read_coco(folder: Folder, complaints: Complaints) -> Found | None:
    """Read the boxes of all files that look like COCO's; None where there are none.

    Of several files those called ``instances...`` count, if there are such.

    Args:
        folder: the files.
        complaints: what is wrong with single files is noted there.

    Raises:
        UserError: the entries of a file are none of COCO's.
    """
    files = {path: spec for path in folder.jsons
             if (spec := _load(folder.root / path, complaints, path)) is not None}
    instances = {path: spec for path, spec in files.items() if 'instances' in path.name}
    files = instances or files
    if not files:
        return None
    photos: dict[Path, Photo] = {}
    classes: dict[str, None] = {}
    # An image of several splits belongs to the last of them.
    order = {'train': 0, 'val': 1, 'test': 2}
    for path in sorted(files, key=lambda path: order.get(split_in_name(path) or 'train', 0)):
        try:
            _read_file(path, files[path], folder, photos, classes, complaints)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UserError(f"'{folder.root / path}' has an entry that is not COCO's "
                            f'({type(error).__name__}: {error}): export it again.') from error
    return Found('COCO JSON', list(photos.values()), list(classes))


def _load(path: Path, complaints: Complaints, name: Path) -> dict[str, Any] | None:
    try:
        spec = json.loads(path.read_text(encoding='utf-8-sig'))
    except (ValueError, RecursionError) as error:
        complaints.add('JSON files that cannot be read, left out',
                       f'{name} ({str(error).splitlines()[0]})')
        return None
    if not isinstance(spec, dict) or not all(isinstance(spec.get(part), list) for part in PARTS):
        return None
    return spec


def _read_file(path: Path, spec: dict[str, Any], folder: Folder, photos: dict[Path, Photo],
               classes: dict[str, None], complaints: Complaints) -> None:
    names = {one['id']: str(one['name']).strip()
             for one in sorted(spec['categories'], key=lambda one: one['id'])}
    classes.update(dict.fromkeys(names.values()))
    by_id: dict[Any, Photo] = {}
    absent: set[Any] = set()
    for entry in spec['images']:
        image = folder.image_named(entry['file_name'], path)
        if image is None:
            complaints.add('annotations without an image, left out', entry['file_name'])
            absent.add(entry['id'])
            continue
        size = (int(entry.get('width') or 0), int(entry.get('height') or 0))
        if image in photos:
            complaints.add('images that are listed more than once, the last counts', image)
        by_id[entry['id']] = photos[image] = Photo(
            image, split=split_in_name(path) or split_of(image), size=size if all(size) else None)
    for one in spec['annotations']:
        if one['image_id'] in absent:
            continue
        photo = by_id.get(one['image_id'])
        name = names.get(one.get('category_id'))
        if photo is None:
            complaints.add('objects of an image that is not listed, left out', path)
        elif name is None:
            complaints.add('objects of a category that is not listed, left out', photo.path)
        elif len(one.get('bbox') or ()) != 4:
            complaints.add('objects without a box, left out', photo.path)
        else:
            x, y, width, height = map(float, one['bbox'])
            photo.boxes.append(Box(name, (x, y, x + width, y + height),
                                   bool(one.get('iscrowd') or one.get('ignore'))))
