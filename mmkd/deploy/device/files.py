"""Files that appear whole or not at all; imports neither torch nor mmengine."""

import errno
import hashlib
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .standalone import UserError

__all__ = ['has_fitting_hash', 'move_into_place', 'replaced', 'require_writable', 'temporary_path',
           'with_hash', 'write_errors', 'written_atomically']

# An ONNX file is a protobuf message, and one more entry of its metadata may follow at its end:
# field 14 of the model, 76 bytes, of which key (field 1) and value (field 2) are 6 and 66.
HASH_ENTRY = b'\x72\x4c\x0a\x06sha256\x12\x42'
HASH_BYTES = 66


def with_hash(model: bytes) -> bytes:
    """Return an ONNX file that ends with the SHA-256 of all before, as ``sha256`` of its metadata.

    Args:
        model: as ``SerializeToString()`` of its proto returns it, without a hash.
    """
    return model + HASH_ENTRY + _hash(model)


def has_fitting_hash(content: bytes) -> bool:
    """Whether an ONNX file ends with the hash of :func:`with_hash`, or with none: another program
    wrote it, or changed it since."""
    model, entry, written = (content[:-HASH_BYTES - len(HASH_ENTRY)],
                             content[-HASH_BYTES - len(HASH_ENTRY):-HASH_BYTES],
                             content[-HASH_BYTES:])
    return entry != HASH_ENTRY or _hash(model) == written


def _hash(model: bytes) -> bytes:
    return f'"{hashlib.sha256(model).hexdigest()}"'.encode()  # JSON, as all the metadata is


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Give a temporary file beside ``path`` that takes its place if nothing is raised.

    Raises:
        OSError: it cannot be written (the disk is full); ``path`` is as it was.
    """
    temporary = temporary_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        move_into_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """Do what :func:`replaced` does, and tell the user if it fails.

    Raises:
        UserError: If it cannot be written.
    """
    with write_errors(path), replaced(path) as temporary:
        yield temporary


def move_into_place(temporary: Path, path: Path) -> None:
    """Let a file that was written beside ``path`` take its place, once all of it is on the disk."""
    with open(temporary, 'r+b') as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    if os.name == 'posix':  # the new name itself must reach the disk, before an old file is removed
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def require_writable(path: Path) -> None:
    """Raise a UserError if a file could not be written there, before hours go into its content."""
    with write_errors(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary_path(path).touch()
        temporary_path(path).unlink()


def temporary_path(path: Path) -> Path:
    """Return a name beside ``path``, of this process alone; OpenCV knows the format by its end."""
    return path.with_name(f'.{path.name}.{platform.node()}.{os.getpid()}.tmp{path.suffix}')


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn an OSError into a UserError that names the file."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write '{path}': {error.strerror}: free some space or name "
                        'another place') from error
