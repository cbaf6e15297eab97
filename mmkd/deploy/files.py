"""Files that appear whole or not at all; imports neither torch nor mmengine."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmkd.errors import UserError

__all__ = ['require_writable', 'temporary_path', 'write_errors', 'written_atomically']


@contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """Give a temporary file beside ``path`` that takes its place if nothing is raised.

    Raises:
        UserError: If it cannot be written.
    """
    temporary = temporary_path(path)
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def require_writable(path: Path) -> None:
    """Raise a UserError if a file could not be written there, before hours go into its content."""
    with write_errors(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary_path(path).touch()
        temporary_path(path).unlink()


def temporary_path(path: Path) -> Path:
    """Return a name beside ``path`` with its suffix, from which OpenCV takes the format."""
    return path.with_name(f'.{path.stem}.{os.getpid()}.tmp{path.suffix}')


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn an OSError into a UserError that names the file."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write '{path}': {error.strerror}: free some space or name "
                        'another place') from error
