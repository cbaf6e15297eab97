"""List a folder of photographs, match annotations to images, and find the splits that it has."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmkd.deploy.device.sources import IMAGE_SUFFIXES
from mmkd.errors import UserError

__all__ = ['Folder', 'split_in_name', 'split_of']

SPLIT = re.compile(r'(train|training|trainval|val|valid|validation|test|testing)(20\d\d)?')
LISTS = {'train.txt': 'train', 'trainval.txt': 'train', 'val.txt': 'val', 'valid.txt': 'val',
         'test.txt': 'test'}
KINDS = {'.xml': 'xmls', '.json': 'jsons', '.txt': 'txts', '.names': 'txts', '.yaml': 'yamls',
         '.yml': 'yamls'}


@dataclass
class Folder:
    """The files below ``root`` by kind, as sorted paths from ``root``; hidden ones are left out."""

    root: Path
    images: list[Path] = field(default_factory=list)
    xmls: list[Path] = field(default_factory=list)
    jsons: list[Path] = field(default_factory=list)
    txts: list[Path] = field(default_factory=list)
    yamls: list[Path] = field(default_factory=list)

    @classmethod
    def of(cls, root: str | os.PathLike) -> 'Folder':
        """List the folder.

        Raises:
            UserError: there is no such folder, or it cannot be read.
        """
        found = cls(Path(root))
        if not found.root.is_dir():
            raise UserError(f"There is no folder '{root}': name the one that holds the "
                            'photographs.')
        try:
            for place, folders, names in os.walk(root, onerror=_raise):
                folders[:] = sorted(name for name in folders if _is_visible(name))
                for name in filter(_is_visible, names):
                    found._add(Path(place, name).relative_to(root))
        except OSError as error:
            raise UserError(f"The folder '{error.filename}' cannot be read ({error.strerror}): "
                            'change its permissions.') from error
        for paths in (found.images, found.xmls, found.jsons, found.txts, found.yamls):
            paths.sort()
        found._by_stem = defaultdict(list)
        for path in found.images:
            found._by_stem[path.stem].append(path)
        return found

    def _add(self, path: Path) -> None:
        suffix = path.suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            self.images.append(path)
        elif suffix in KINDS:
            getattr(self, KINDS[suffix]).append(path)

    def has_stem(self, stem: str) -> bool:
        """Whether an image is called so."""
        return stem in self._by_stem

    def image_of(self, annotation: Path) -> Path | None:
        """Return the image called as an annotation file; of several the one in the same folder, or
        in the folder beside whose path is most alike (``images/a/1.jpg``, ``labels/a/1.txt``).
        """
        return _closest(annotation, self._by_stem.get(annotation.stem, ()))

    def image_named(self, name: str, source: Path) -> Path | None:
        """Return the image that ``source`` calls ``name``, which may have folders before it.

        Of several the one in a folder of the split that ``source`` is called after.
        """
        wanted = Path(name.replace('\\', '/'))
        same = [path for path in self._by_stem.get(wanted.stem, ()) if path.name == wanted.name]
        of_split = [path for path in same if split_of(path) == split_in_name(source)]
        return _closest(source.parent / wanted, of_split or same)

    def listed_splits(self) -> dict[Path, str]:
        """Return the split of every image that a ``train.txt``, ``val.txt`` or ``test.txt`` names.

        ``ImageSets/Main`` of VOC layout has such lists, and so have YOLO's; an image that
        several name belongs to the last of train, val and test.
        """
        found: dict[Path, str] = {}
        lists = [path for path in self.txts if path.name in LISTS]
        for path in sorted(lists, key=lambda path: list(LISTS).index(path.name)):
            for line in read_text(self.root / path).splitlines():
                image = self._listed(line.strip(), path)
                if image is not None:
                    found[image] = LISTS[path.name]
        return found

    def _listed(self, line: str, source: Path) -> Path | None:
        """Find an image by a line of a list: a path, or a name without suffix."""
        name = Path(line).name
        stem = Path(line).stem if Path(line).suffix.lower() in IMAGE_SUFFIXES else name
        return _closest(source.parent / line, self._by_stem.get(stem, ()))

    def __str__(self) -> str:
        return ', '.join(f'{len(paths)} {what}' for what, paths in (
            ('images', self.images), ('.xml', self.xmls), ('.json', self.jsons),
            ('.txt', self.txts)))


def read_text(path: Path) -> str:
    """Return a text file, whatever signs are not UTF-8 in it."""
    return path.read_text(encoding='utf-8-sig', errors='replace')


def split_of(path: Path) -> str | None:
    """Return the split that a folder in ``path`` is called after, the innermost one."""
    return next(filter(None, (_split(part) for part in reversed(path.parts[:-1]))), None)


def split_in_name(path: Path) -> str | None:
    """Return the split of an annotation file: by a word of its name, or by its folder."""
    words = re.split(r'[^a-z0-9]+', path.stem.lower())
    return next(filter(None, map(_split, words)), None) or split_of(path)


def _split(word: str) -> str | None:
    match = SPLIT.fullmatch(word.lower())
    if match is None:
        return None
    return next(split for split in ('train', 'val', 'test') if match[1].startswith(split))


def _closest(wanted: Path, candidates: Sequence[Path]) -> Path | None:
    """Return the candidate whose folders are most like those of ``wanted``."""
    parts = set(wanted.parts[:-1])
    return max(candidates, key=lambda path: (_alike(parts, path.parts[:-1]), -len(path.parts)),
               default=None)


def _alike(parts: set[str], others: Iterable[str]) -> int:
    return sum(1 if part in parts else -1 for part in others)


def _is_visible(name: str) -> bool:
    return not name.startswith('.') and name != '__MACOSX'


def _raise(error: OSError) -> None:
    raise error
