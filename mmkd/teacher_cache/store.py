"""A teacher's stored outputs: one folder of shards for each view, and what they were made from."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmkd.errors import UserError
from mmkd.files import write_atomically
from mmkd.teacher_cache.claims import Unit
from mmkd.teacher_cache.identity import difference
from mmkd.teacher_cache.shards import BrokenShardError, Entry, Shard

__all__ = ['Contents', 'TeacherStore']

SPEC = 'made_from.json'
OPEN_SHARDS = 256


@dataclass(frozen=True)
class Contents:
    """What an entry of a store holds."""

    taps: Mapping[str, str]
    """For each leaf the name of its codec, in the order of the arrays."""
    arrays: Mapping[str, int]
    """For each leaf how many arrays it has."""
    patterns: Mapping[str, Sequence[str]]
    """For each tap of a config the leaves it stands for."""
    classes: Sequence[str] | None
    """The teacher's classes, if known."""
    input_size: Sequence[int]
    """Height and width of the batches that the teacher saw."""


@dataclass
class TeacherStore:
    """What a teacher says of every view of every image.

    ``folder/<teacher>/made_from.json`` tells what it was made from, and
    ``folder/<teacher>/view-0007/00012.shard`` holds view 7 of images ``12 * shard_size`` and on.

    Args:
        folder: of this teacher.
        made_from: what the outputs depend on, see :mod:`..identity`.
        images: how many the data set has.
        shard_size: images of a shard.
    """

    folder: Path
    made_from: dict[str, Any]
    images: int
    shard_size: int
    contents: Contents | None = None
    """None until the store exists."""
    _identity: str = ''
    _open: OrderedDict[Unit, Shard] = field(default_factory=OrderedDict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {'_open': OrderedDict()}

    @property
    def shards_per_view(self) -> int:
        """How many shards a view has."""
        return -(-self.images // self.shard_size)

    def units(self, views: int) -> list[Unit]:
        """Return all shards of the first ``views`` views."""
        return [(view, shard) for view in range(views) for shard in range(self.shards_per_view)]

    def load(self) -> None:
        """Take over :attr:`contents` from the disk, if there is such a store.

        Raises:
            UserError: it was made from something else, or its description cannot be read.
        """
        path = self.folder / SPEC
        if not path.is_file():
            return
        try:
            spec = json.loads(path.read_bytes())
            if spec.pop('sha256') != _checksum(spec):
                raise ValueError('its checksum does not fit')
            contents = Contents(**spec['contents'])
            made_from = spec['made_from']
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UserError(f"'{path}' does not describe a cache ({error}): delete "
                            f"'{self.folder}' to build it anew") from error
        found = difference(made_from, self.made_from)
        if found:
            raise UserError(f"the cache '{self.folder}' is not of this run: {found}; name another "
                            'folder in teacher_cache, or delete this one to build it anew')
        self.contents = contents
        self._identity = hashlib.sha256(path.read_bytes()).hexdigest()

    def create(self, contents: Contents) -> None:
        """Write down what the store will hold.

        Raises:
            UserError: somebody else just made another one there.
            OSError: it cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        spec = dict(made_from=self.made_from, contents=contents.__dict__)
        if not (self.folder / SPEC).is_file():
            write_atomically(self.folder / SPEC, json.dumps(
                spec | dict(sha256=_checksum(spec)), indent=1).encode())
        self.load()

    def covers(self, taps: Mapping[str, str]) -> str | None:
        """Return what of ``taps`` (tap or wildcard: name of its codec) is not stored, or None."""
        assert self.contents is not None
        for pattern, codec in taps.items():
            if pattern not in self.contents.patterns:
                return f"it holds {', '.join(self.contents.patterns)} and not '{pattern}'"
            for tap in self.contents.patterns[pattern]:
                if self.contents.taps[tap] != codec:
                    return f"it holds '{tap}' as {self.contents.taps[tap]} and not as {codec}"
        return None

    def check_size(self, height: int, width: int) -> None:
        """Make sure that a batch is as large as those that the teacher saw.

        A batch is padded to its largest image, so what a network says of an image would else
        depend on the others.

        Raises:
            UserError: it is not.
        """
        assert self.contents is not None
        if list(self.contents.input_size) != [height, width]:
            there = ' x '.join(map(str, self.contents.input_size))
            raise UserError(f'teacher_cache needs batches of one size, and here are {there} and '
                            f'{height} x {width} px: let the pipeline bring all images to one '
                            'size, or take teacher_cache out of the config')

    def path(self, view: int, shard: int) -> Path:
        """Where a shard lies."""
        return self.folder / f'view-{view:04}' / f'{shard:05}.shard'

    def owner(self, view: int, shard: int) -> str:
        """What a shard says of itself: this teacher and data, the view and the place in it."""
        return f'{self._identity} view {view} shard {shard}'

    def missing(self, units: Iterable[Unit]) -> tuple[list[Unit], list[str]]:
        """Return those of ``units`` that are not there, and why some broke.

        Raises:
            UserError: one is there and cannot be read.
        """
        absent, reasons = [], []
        for view, shard in units:
            try:
                self._shard(view, shard)
                continue
            except FileNotFoundError:
                pass
            except BrokenShardError as error:
                reasons.append(str(error))
            except OSError as error:
                raise self._unreadable(error, view, shard) from error
            absent.append((view, shard))
        return absent, reasons

    def size_of(self, shard: int) -> int:
        """How many images a shard holds."""
        return min(self.shard_size, self.images - shard * self.shard_size)

    def read(self, image: int, view: int) -> Entry:
        """Return the entry of a view.

        Raises:
            UserError: its shard is gone or damaged.
        """
        shard, row = divmod(image, self.shard_size)
        try:
            return self._opened(view, shard).read(row)
        except (BrokenShardError, OSError) as error:
            raise self._unreadable(error, view, shard) from error

    def _unreadable(self, error: Exception, view: int, shard: int) -> UserError:
        return UserError(f'the cache cannot be read ({error}): delete {self.path(view, shard)} and '
                         'start again, what is missing is built anew')

    def _shard(self, view: int, shard: int) -> Shard:
        found = Shard(self.path(view, shard))
        if found.owner != self.owner(view, shard):
            raise BrokenShardError(f'{found.path} is of another teacher, data set, view or place')
        if len(found) != self.size_of(shard):
            raise BrokenShardError(f'{found.path} has another number of images')
        return found

    def _opened(self, view: int, shard: int) -> Shard:
        key = view, shard
        if key not in self._open:
            self._open[key] = self._shard(view, shard)
            if len(self._open) > OPEN_SHARDS:
                self._open.popitem(last=False)
        self._open.move_to_end(key)
        return self._open[key]


def _checksum(spec: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()
