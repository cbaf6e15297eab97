"""Look at every image and box of what was found, leave out what is broken, and say so."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from difflib import SequenceMatcher
from pathlib import Path

from mmkd.errors import UserError, did_you_mean
from mmkd.images import load_image
from mmkd.own_data.photos import Box, Complaints, Found, Photo

__all__ = ['check', 'settle_classes']

ORDER = ('test', 'val', 'train', None)
"""Of two copies the one in the first of these stays, so that no test image is trained on."""
TINY = 1.0
"""MMDetection leaves out boxes that are less wide or high, in pixels."""
SLACK = 1.0
"""Labelling tools count from 0 or from 1: so far beyond the border nothing is said."""


def check(found: Found, root: Path, complaints: Complaints) -> None:
    """Decode all images, clip all boxes, leave out copies and whatever cannot be used.

    Some 200 photographs a second.

    Args:
        found: changed; every photograph that stays has its own ``size`` and boxes in pixels.
        root: the folder.
        complaints: what is wrong is noted there.
    """
    found.photos.sort(key=lambda photo: (ORDER.index(photo.split), str(photo.path)))
    found.photos = list(_without_copies(found.photos, root, complaints))
    with ThreadPoolExecutor() as pool:  # OpenCV lets go of the interpreter's lock
        sizes = list(pool.map(lambda photo: _size(root / photo.path), found.photos))
    kept = []
    for photo, size in zip(found.photos, sizes, strict=True):
        if isinstance(size, str):
            complaints.add('images that cannot be read, left out', f'{photo.path} ({size})')
            continue
        if photo.size not in (None, size):
            complaints.add('annotations with another size than their image has, check the boxes',
                           photo.path)
        photo.size = size
        photo.boxes = list(_sound_boxes(photo, complaints))
        kept.append(photo)
    found.photos = kept


def settle_classes(found: Found, wanted: Sequence[str] | None,
                   complaints: Complaints) -> tuple[str, ...]:
    """Return the classes to learn, and leave out the objects of others.

    Args:
        found: changed.
        wanted: their names and order; None for all that have an object.
        complaints: unknown and misspelt ones are noted there.

    Raises:
        UserError: nothing is left.
    """
    counts = found.counts()
    classes = [str(name) for name in wanted or found.classes or sorted(counts)]
    for name in [name for name in counts if name not in classes]:
        complaints.add(f"{'images' if found.is_classified else 'objects'} of classes that are not "
                       'asked for, left out', f"'{name}' ({counts[name]})", counts[name])
    for photo in found.photos:
        photo.boxes = [box for box in photo.boxes if box.name in classes]
    if found.is_classified:
        found.photos = [photo for photo in found.photos if photo.label in classes]
    left = found.counts()
    if not left:
        raise UserError(f"Nothing is left to learn in {len(counts)} classes "
                        f"({', '.join(map(str, counts)) or 'no objects'}): correct what is named "
                        'above, or name the classes with --classes a,b.')
    for name in [name for name in classes if not left[name]]:
        complaints.add('classes without an object' + ('' if wanted else ', left out'),
                       f"'{name}'{did_you_mean(name, counts)}")
    for rare, common in _alike(classes, left):
        complaints.add('class names that look like another', f"'{rare}' ({left[rare]}) is like "
                       f"'{common}' ({left[common]})")
    return tuple(name for name in classes if wanted or left[name])


def _alike(classes: Sequence[str], counts: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Yield rare names that may be misspelt, each with the common one that it looks like."""
    for rare in classes:
        for common in classes:
            if _is_misspelt(rare, common, counts):
                yield rare, common
                break


def _is_misspelt(rare: str, common: str, counts: Mapping[str, int]) -> bool:
    """Whether the names differ by case or spaces, or little and one is ten times as frequent."""
    if not 0 < counts[rare] <= counts[common] or rare == common:
        return False
    one, other = rare.lower().replace(' ', ''), common.lower().replace(' ', '')
    if one == other:
        return counts[rare] < counts[common] or rare > common
    # Names that end in a number, as those of YOLO without names, are meant to be alike.
    if counts[common] < 10 * counts[rare] or one.rstrip('0123456789') != one:
        return False
    return sorted(one) == sorted(other) or SequenceMatcher(None, one, other).ratio() >= 0.8


def _without_copies(photos: Sequence[Photo], root: Path,
                    complaints: Complaints) -> Iterator[Photo]:
    """Yield the photographs whose file is not the same as that of one before."""
    by_length = defaultdict(list)
    for photo in photos:
        by_length[_length(root / photo.path)].append(photo)
    seen: dict[bytes, Path] = {}
    for photo in photos:
        length = _length(root / photo.path)
        if length and len(by_length[length]) > 1:
            key = hashlib.sha256((root / photo.path).read_bytes()).digest()
            if key in seen:
                complaints.add('images that are a copy of another, left out',
                               f'{photo.path} (of {seen[key]})')
                continue
            seen[key] = photo.path
        yield photo


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a link to nothing: reported as an image that cannot be read
        return 0


def _size(path: Path) -> tuple[int, int] | str:
    """Return width and height, or what is wrong with the file."""
    try:
        height, width = load_image(path).shape[:2]
    except UserError as error:
        return str(error).partition("' ")[2].partition(':')[0]
    return width, height


def _sound_boxes(photo: Photo, complaints: Complaints) -> Iterable[Box]:
    """Yield the boxes that can be used, in pixels and within the image."""
    width, height = photo.size
    factors = (width, height) * 2 if photo.relative else (1, 1, 1, 1)
    seen = set()
    for box in photo.boxes:
        x1, y1, x2, y2 = (corner * factor for corner, factor
                          in zip(box.corners, factors, strict=True))
        inside = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
        beyond = max(-x1, -y1, x2 - width, y2 - height)
        what = None
        if not all(abs(corner) < 1e9 for corner in (x1, y1, x2, y2)):
            what = 'boxes whose corners are no numbers, left out'
        elif x2 < x1 or y2 < y1:
            what = 'boxes that are upside down (the second corner before the first), left out'
        elif x2 - x1 < TINY or y2 - y1 < TINY:
            what = 'boxes of less than one pixel, left out'
        elif inside[2] - inside[0] < TINY or inside[3] - inside[1] < TINY:
            what = 'boxes outside of their image, left out'
        elif (box.name, inside) in seen:
            what = 'boxes that come twice, left out once'
        if what is not None:
            complaints.add(what, photo.path)
            continue
        if beyond > SLACK:
            complaints.add('boxes that reach beyond their image, clipped', photo.path)
        seen.add((box.name, inside))
        yield Box(box.name, inside, box.ignored)
