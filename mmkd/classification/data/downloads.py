"""Find the files of a public data set, or fetch them."""

import hashlib
import http.client
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.dist import broadcast_object_list, is_main_process

from mmkd.errors import UserError
from mmkd.files import replaced

__all__ = ['RemoteFile', 'download', 'obtain', 'on_main_process', 'warn_of_differences']


@dataclass(frozen=True)
class RemoteFile:
    """A published file: its name, its address and its MD5 in hexadecimal."""

    name: str
    url: str
    md5: str


def obtain(folder: Path, files: Iterable[RemoteFile], layout: str) -> list[Path]:
    """Return the paths of ``files`` in ``folder``, downloading those that are missing.

    A local file is used as it is, with a warning if its checksum is not the published one. Only
    the main process of a distributed run downloads, all others wait for it.

    Args:
        folder: where the files are, and where they are put.
        files: what is needed.
        layout: the expected layout, for the error.

    Raises:
        UserError: a file is missing and cannot be downloaded, or what was downloaded does not
            have the published checksum. On every process of a distributed run.
    """
    files = list(files)
    local = [file for file in files if (folder / file.name).is_file()]
    warn_of_differences(folder, {file.name: file.md5 for file in local})
    on_main_process(lambda: [download(folder, file, layout) for file in files
                             if not (folder / file.name).is_file()])
    return [folder / file.name for file in files]


def warn_of_differences(folder: Path, checksums: dict[str, str]) -> None:
    """Warn of the files in ``folder`` whose MD5 is not the one given for their name."""
    different = [name for name, md5 in checksums.items() if _md5(folder / name) != md5]
    if different:
        warnings.warn(f'{", ".join(different)} in {folder} differ from the published checksums: '
                      'they are used, but results may not compare with published ones.',
                      stacklevel=3)


def on_main_process(action: Callable[[], object]) -> None:
    """Run ``action`` on the main process while the others wait; its error reaches all of them.

    Raises:
        UserError: ``action`` raised it.
    """
    errors: list[str | None] = [None]
    if is_main_process():
        try:
            action()
        except UserError as error:
            errors = [str(error)]
    broadcast_object_list(errors)
    if errors[0] is not None:
        raise UserError(errors[0])


def download(folder: Path, file: RemoteFile, layout: str) -> None:
    """Download ``file`` into ``folder``, in this process; ``layout`` is for the error.

    Raises:
        UserError: there is no way to it, or it does not have the published checksum.
    """
    try:
        with replaced(folder / file.name) as partial:
            torch.hub.download_url_to_file(file.url, str(partial))
            found = _md5(partial)
            if found != file.md5:
                raise UserError(f'what {file.url} gave for {file.name} has MD5 {found} and not '
                                f'{file.md5}: try again, or put the right file into {folder}')
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f'{folder / file.name} is missing and {file.url} cannot be downloaded '
                        f'({error}): fetch it elsewhere and put it there; the expected layout is '
                        f'{layout}') from error


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, 'rb') as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
