"""Files of arrays that are whole or not there, and whose every entry carries a checksum.

A shard holds many entries, each a list of arrays::

    entry 0 | entry 1 | ... | head (JSON) | one row per entry | footer

The head says whose the entries are (so that a shard in another's place is noticed) and has their
layouts. A row is (offset, size, CRC-32, number of the layout), all int64. The layout lists dtype
and shape of an entry's arrays, which lie one after the other, each at a multiple of 16 bytes. The
footer comes last, so a file that is cut off has none. Nothing in it is ever executed or unpickled.

Why not safetensors: it reads as fast, but it writes a file from arrays that are all in memory, 1 GB
for 128 images with a large pyramid, it has no checksums, and its arrays come one by one, where an
entry goes to the device in one piece.
"""

import json
import mmap
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmkd import files
from mmkd.moved_names import moved_names

__all__ = ['BrokenShardError', 'Entry', 'Shard', 'ShardWriter', 'entry_bytes', 'written_shard']

__getattr__ = moved_names(__name__, written_file='mmkd.files')

MAGIC = b'mmkd shard 2\n\0\0\0'
FOOTER = struct.Struct('<QQQI')  # begin and bytes of the head, entries, CRC-32 of head and rows
ALIGNMENT = 16
DTYPES = ('float16', 'float32', 'float64', 'int32', 'int64', 'uint8')


class BrokenShardError(Exception):
    """A shard is cut off, damaged or no shard at all."""


class Entry(NamedTuple):
    """The arrays that belong together."""

    data: Tensor
    """``(n,)``, uint8: all arrays, one after the other."""
    layout: tuple[tuple[str, tuple[int, ...], int], ...]
    """dtype, shape and first byte of each array."""

    def arrays(self) -> list[np.ndarray]:
        """The arrays, as views into the data."""
        return [np.ndarray(shape, dtype, self.data.numpy(), start)
                for dtype, shape, start in self.layout]


def entry_bytes(arrays: Sequence[np.ndarray]) -> int:
    """Return what an entry takes in a shard."""
    return sum(_padded(array.nbytes) for array in arrays)


class ShardWriter:
    """Writes entries, one after the other, into an open file.

    Args:
        file: open for writing, empty.
        owner: whose the entries are; :attr:`Shard.owner` gives it back.
    """

    def __init__(self, file: BinaryIO, owner: str) -> None:
        self._file, self._owner = file, owner
        self._rows: list[tuple[int, int, int, int]] = []
        self._layouts: dict[str, int] = {}
        self._end = 0

    def add(self, arrays: Sequence[np.ndarray]) -> None:
        """Append an entry."""
        layout = json.dumps([(array.dtype.name, array.shape) for array in arrays])
        number = self._layouts.setdefault(layout, len(self._layouts))
        begin, checksum = self._end, 0
        for array in arrays:
            content = np.ascontiguousarray(array).tobytes()
            content += bytes(_padded(len(content)) - len(content))
            self._file.write(content)
            checksum = zlib.crc32(content, checksum)
            self._end += len(content)
        self._rows.append((begin, self._end - begin, checksum, number))

    def close(self) -> None:
        """Write what makes the file a whole one."""
        head = json.dumps(dict(
            owner=self._owner, layouts=[json.loads(layout) for layout in self._layouts])).encode()
        table = np.array(self._rows, dtype='<i8').reshape(-1, 4).tobytes()
        self._file.write(head + table)
        self._file.write(FOOTER.pack(self._end, len(head), len(self._rows),
                                     zlib.crc32(head + table)) + MAGIC)


@contextmanager
def written_shard(path: Path, owner: str = '') -> Iterator[ShardWriter]:
    """Give a writer of a shard that appears as :func:`mmkd.files.written_file` lets it."""
    with files.written_file(path) as file:
        writer = ShardWriter(file, owner)
        yield writer
        writer.close()


class Shard:
    """A shard open for reading, by any number of processes at a time.

    Args:
        path: of the file.

    Raises:
        BrokenShardError: it is cut off, damaged or no shard.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        tail = FOOTER.size + len(MAGIC)
        with open(path, 'rb') as file:
            size = file.seek(0, os.SEEK_END)
            if size < tail:
                raise BrokenShardError(f'{path} is cut off')
            file.seek(size - tail)
            footer = file.read(tail)
            if footer[FOOTER.size:] != MAGIC:
                raise BrokenShardError(f'{path} is cut off or no file of a cache')
            begin, head_bytes, count, checksum = FOOTER.unpack(footer[:FOOTER.size])
            if begin + head_bytes + 32 * count + tail != size:
                raise BrokenShardError(f'{path} has {size} bytes, which is not its own size')
            file.seek(begin)
            index = file.read(head_bytes + 32 * count)
            if zlib.crc32(index) != checksum:
                raise BrokenShardError(f'the index of {path} is damaged')
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._rows = np.frombuffer(index[head_bytes:], dtype='<i8').reshape(count, 4)
        try:
            head = json.loads(index[:head_bytes])
            self.owner: str = head['owner']
            """What :class:`ShardWriter` was told."""
            self._layouts = [_with_offsets(layout) for layout in head['layouts']]
        except (ValueError, KeyError, TypeError) as error:
            raise BrokenShardError(f'the head of {path} is not what mmkd writes') from error

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, number: int) -> Entry:
        """Return a copy of an entry.

        Raises:
            BrokenShardError: its checksum does not fit, or the file was cut off since it was
                opened.
        """
        begin, size, checksum, layout = self._rows[number].tolist()
        # To read a page that the file has no more would end the process.
        if self._map.size() < len(self._map):
            raise BrokenShardError(f'{self.path} is cut off')
        content = self._map[begin:begin + size]
        if zlib.crc32(content) != checksum:
            raise BrokenShardError(f'entry {number} of {self.path} is damaged')
        data = np.frombuffer(bytearray(content), dtype=np.uint8)
        return Entry(torch.from_numpy(data), self._layouts[layout])


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _with_offsets(layout: list) -> tuple[tuple[str, tuple[int, ...], int], ...]:
    found, start = [], 0
    for name, shape in layout:
        if name not in DTYPES:
            raise ValueError(name)
        found.append((name, tuple(shape), start))
        start += _padded(np.dtype(name).itemsize * int(np.prod(shape, dtype=np.int64)))
    return tuple(found)
