"""Who builds which part of a cache, and how far that is."""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.logging import print_log

from mmkd.errors import UserError

__all__ = ['Claims', 'Progress', 'Unit', 'claims_of', 'disk_errors']

Unit = tuple[int, int]
"""View and number of a shard."""


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn an OSError into a UserError that names the cache."""
    try:
        yield
    except OSError as error:
        raise UserError(f"the cache in '{folder}' cannot be written ({error.strerror}): free some "
                        'space and start again, what is finished is kept') from error


class Claims:
    """Locks on single bytes of one file: one for each unit, given back when a process dies.

    Not filelock, which would leave a file for every unit, thousands of them.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        self.held = True
        """False where the file system knows no locks: work may then be done twice, and no more."""

    def take(self, unit: Unit) -> bool:
        """Try to lock a unit."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _byte(unit))
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            self.held = False
        return True

    def leave(self, unit: Unit) -> None:
        """Unlock a unit."""
        if self.held:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _byte(unit))


def _byte(unit: Unit) -> int:
    return unit[0] << 32 | unit[1]


@contextmanager
def claims_of(folder: Path) -> Iterator[Claims]:
    """Open the lock file of a cache.

    A process must have it open only once: closing it gives up all of the process's locks.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(folder / 'lock', os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield Claims(file)
    finally:
        os.close(file)


class Progress:
    """Says now and then how much of a pass is done and about how long the rest takes."""

    def __init__(self, units: int) -> None:
        self._units, self._built, self._images = units, 0, 0
        self._start = self._last = time.monotonic()

    def images(self, count: int) -> None:
        """Count images that were seen."""
        self._images += count
        now = time.monotonic()
        if now - self._last >= 20:
            self._last = now
            rate = self._images / (now - self._start)
            print_log(f'Cache: {self._built} of {self._units} missing parts built, {rate:.1f} '
                      'views a second', 'current')

    def unit(self) -> None:
        """Count a finished unit."""
        self._built += 1

    def wait(self, left: int) -> None:
        """Wait for others."""
        if time.monotonic() - self._last >= 20:
            self._last = time.monotonic()
            print_log(f'Cache: waiting for {left} parts that other processes build', 'current')
        time.sleep(0.2)
