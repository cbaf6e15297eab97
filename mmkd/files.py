"""Files and folders that appear whole or not at all, whoever writes them.

Each is written beside its place under a name of its own (``.epoch_1.pth.HOST.PID.tmp.pth``),
flushed to the disk and renamed, which POSIX does atomically: under its name there is always one
whole file, whatever is killed and when. What a device needs of this is in
:mod:`mmkd.deploy.device.files`, and is here, too.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mmkd.deploy.device.files import (
    replaced,
    require_writable,
    temporary_path,
    write_errors,
    written_atomically,
)

__all__ = ['leftovers', 'link_atomically', 'replaced', 'require_writable', 'write_atomically',
           'write_errors', 'written_atomically', 'written_file', 'written_folder']


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write ``content`` so that ``path`` holds either the old content or all of the new.

    Raises:
        OSError: it cannot be written (the disk is full); ``path`` is as it was.
    """
    with replaced(Path(path)) as temporary:
        temporary.write_bytes(content)


@contextmanager
def written_file(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write into, which appears at ``path`` once all went well.

    Raises:
        OSError: as :func:`write_atomically`.
    """
    with replaced(path) as temporary, open(temporary, 'wb') as file:
        yield file


@contextmanager
def written_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to fill, which becomes ``folder`` if nothing is raised.

    Raises:
        OSError: it cannot be written, or ``folder`` is there already and holds something.
    """
    part = folder.with_name(f'.{folder.name}.{os.getpid()}.partial')
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        yield part
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def link_atomically(source: str | Path, target: Path) -> None:
    """Let ``target`` be the file ``source``, by a hard link or, where there is none, a copy.

    Raises:
        OSError: it cannot be made; ``target`` is as it was.
    """
    temporary = temporary_path(target)
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:  # another disk, or one without hard links
        write_atomically(target, Path(source).read_bytes())
        return
    try:
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)  # a link to the same file is not renamed


def leftovers(folder: str | Path, name: str = '*') -> Iterator[Path]:
    """Find what killed processes left in a folder of the file ``name``, or of every one."""
    return Path(folder).glob(f'.{name}.*.tmp*')
