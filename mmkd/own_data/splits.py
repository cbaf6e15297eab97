"""Which photographs are trained on, validated on and tested on."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable

from mmkd.errors import UserError
from mmkd.own_data.photos import Complaints, Found, Photo

__all__ = ['SHARE', 'SPLITS', 'assign_splits']

SPLITS = ('train', 'val', 'test')
SHARE = 0.1
"""Of the photographs for validation, and for the test."""


def assign_splits(found: Found, complaints: Complaints, seed: int = 0) -> list[str]:
    """Give every photograph a split, and return the names of the splits that were made.

    Splits that the folder has are kept; where none is called so, what is in no split is for
    training. What is missing is taken from the training images, by a hash of the file's name and
    the seed: a photograph stays where it is when others are added. A split that would stay empty
    (of a classifier: have none of a class) gets the one whose hash comes first.

    Args:
        found: changed; without the photographs that the folder's own splits do not name.
        complaints: those are noted there.
        seed: another gives another split.

    Raises:
        UserError: there are too few photographs.
    """
    existing = {photo.split for photo in found.photos if photo.split}
    unnamed = [photo for photo in found.photos if not photo.split]
    if 'train' in existing:
        for photo in unnamed:
            complaints.add('images in no split, left out', photo.path)
        found.photos = [photo for photo in found.photos if photo.split]
    elif not unnamed:  # all in a folder `val`, say: nothing would be trained on
        existing, unnamed = set(), found.photos
    if 'train' not in existing:
        for photo in unnamed:
            photo.split = 'train'
    made = [split for split in ('test', 'val') if split not in existing]
    groups: dict[str | None, list[Photo]] = defaultdict(list)
    for photo in found.photos:
        if photo.split == 'train':
            groups[photo.label].append(photo)
    for label, photos in groups.items():
        if len(photos) <= len(made):
            what = f"of class '{label}' " if label is not None else ''
            raise UserError(f'{len(photos)} usable images {what}are too few for '
                            f'{", ".join(["train", *reversed(made)])}: add some.')
        _share_out(photos, made, seed)
    return [split for split in SPLITS if split in made or not existing]


def _share_out(photos: Iterable[Photo], made: list[str], seed: int) -> None:
    """Move ``SHARE`` of the photographs to each split that is made."""
    waiting = sorted(photos, key=lambda photo: (_place(photo, seed), str(photo.path)))
    for number, split in enumerate(made, 1):
        own = [photo for photo in waiting if _place(photo, seed) < number * SHARE] or waiting[:1]
        own = own[:len(waiting) - (len(made) - number) - 1]  # one for each that comes later
        for photo in own:
            photo.split = split
        waiting = waiting[len(own):]


def _place(photo: Photo, seed: int) -> float:
    """Return a number from 0 to 1 that follows from the file's name."""
    digest = hashlib.sha256(f'{seed}:{photo.path.name}'.encode('utf-8', 'surrogateescape')).digest()
    return int.from_bytes(digest[:8], 'big') / 2 ** 64
