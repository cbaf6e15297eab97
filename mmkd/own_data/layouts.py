"""Recognise how a folder says what is in its photographs."""

import os
from collections.abc import Iterable
from pathlib import Path

from mmkd.detection.data.annotation import read_annotation
from mmkd.errors import UserError
from mmkd.own_data.coco import read_coco
from mmkd.own_data.folder import Folder, split_of
from mmkd.own_data.photos import Box, Complaints, Found, Photo
from mmkd.own_data.yolo import read_yolo

__all__ = ['recognise']

UNDERSTOOD = ('VOC XML, COCO JSON (images, annotations, categories), YOLO text (a .txt for each '
              'image), and a folder of images for each class')
ROLES = ('images', 'jpegimages', 'imgs', 'img')


def recognise(folder: Folder, complaints: Complaints) -> Found:
    """Read the photographs and their annotations.

    Args:
        folder: the files.
        complaints: what is wrong with single files is noted there.

    Raises:
        UserError: nothing is understood; says what was seen.
    """
    for read in (_read_voc, read_coco, read_yolo):
        found = read(folder, complaints)
        if found is not None:
            used = {photo.path for photo in found.photos}
            _note_all('images without an annotation, left out',
                      (path for path in folder.images if path not in used), complaints)
            return found
    found = _read_class_folders(folder, complaints)
    if found is None:
        raise UserError(f"'{folder.root}' holds {folder}, and nothing that says what is in the "
                        f'images: understood are {UNDERSTOOD}; see docs/your_data.md.')
    return found


def _note_all(what: str, paths: Iterable[Path], complaints: Complaints) -> None:
    for path in paths:
        complaints.add(what, path)


def _read_voc(folder: Folder, complaints: Complaints) -> Found | None:
    files = [path for path in folder.xmls if b'<annotation' in _start(folder.root / path)]
    if not files:
        return None
    listed = folder.listed_splits()
    photos: dict[Path, Photo] = {}
    for path in files:
        image = folder.image_of(path)
        if image is None:
            complaints.add('annotations without an image, left out', path)
        elif image in photos:
            complaints.add('annotations of an image that has another one, left out', path)
        else:
            split = listed.get(image) or (None if listed else split_of(image) or split_of(path))
            photo = _voc_photo(folder.root, path, image, split, complaints)
            if photo is not None:
                photos[image] = photo
    return Found('VOC XML', list(photos.values()))


def _start(path: Path) -> bytes:
    with path.open('rb') as file:
        return file.read(4096).replace(b'\0', b'')  # UTF-16, too


def _voc_photo(root: Path, path: Path, image: Path, split: str | None,
               complaints: Complaints) -> Photo | None:
    try:
        annotation = read_annotation(root / path)
    except UserError as error:
        complaints.add('annotations that cannot be read, left out with their image',
                       f'{path} ({_reason(error, root / path)})')
        return None
    # From 1 to MMDetection's pixels, as VOCLayoutDataset does.
    boxes = [Box(one.name, tuple(float(corner - 1) for corner in one.box), one.difficult)
             for one in annotation.objects]
    return Photo(image, boxes, split=split, size=annotation.size)


def _reason(error: UserError, path: Path) -> str:
    return str(error).partition(f'{path} is not valid: ')[2].partition(';')[0] or str(error)


def _read_class_folders(folder: Folder, complaints: Complaints) -> Found | None:
    """Read ``cat/1.jpg`` or ``train/cat/1.jpg``; the images of a class may lie deeper."""
    if not folder.images:
        return None
    parents = [path.parent.parts for path in folder.images]
    common = len(Path(os.path.commonpath([path.parent for path in folder.images])).parts)
    photos = []
    for path, parts in zip(folder.images, parents, strict=True):
        splits = [i for i in range(len(parts)) if split_of(Path(parts[i], '-'))]
        after = parts[splits[0] + 1 if splits else common:]
        if after:
            photos.append(Photo(path, label=after[0], split=split_of(path)))
    labels = {photo.label for photo in photos}
    if len(labels) < 2 or any(str(label).lower() in ROLES for label in labels):
        return None
    inside = {photo.path for photo in photos}
    _note_all('images outside of the class folders, left out',
              (path for path in folder.images if path not in inside), complaints)
    return Found('a folder of images for each class', photos)
