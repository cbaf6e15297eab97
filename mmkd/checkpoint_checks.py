"""What PyTorch does not look at when it reads weights: checksums, and that they are weights."""

import hashlib
import os
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmkd.errors import DAMAGED_ARCHIVE, UserError

__all__ = ['WEIGHTS_HASH', 'check_hash', 'is_whole', 'is_zip', 'state_dict_of',
           'warn_without_checksums', 'weights_hash', 'would_run_code']

WEIGHTS_HASH = 'weights_sha256'
"""What mmkd's own checkpoints have in ``meta``: :func:`weights_hash` of their ``state_dict``."""
CHUNK = 1 << 20

# How PyTorch's unpickler says that something in a file would be imported, called or built.
_REFUSED = re.compile(r'unsupported global|unsupported: |is blocked|unrecognized function'
                      r'|can only (?:create|build)|must be imported', re.IGNORECASE)
_CALLS = {'GLOBAL', 'STACK_GLOBAL', 'INST', 'OBJ', 'REDUCE', 'NEWOBJ', 'NEWOBJ_EX'}


def is_zip(path: str | Path) -> bool:
    """Whether PyTorch reads the file as a zip: as it writes them since version 1.6."""
    with open(path, 'rb') as file:
        return file.read(4) == b'PK\x03\x04'


def is_whole(path: str | Path) -> bool:
    """Whether ``path`` is a complete checkpoint as ``torch.save`` writes it (checksums agree)."""
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                with archive.open(entry) as content:
                    while content.read(CHUNK):
                        pass  # the end of an entry raises an error if its checksum is another
    except DAMAGED_ARCHIVE:
        return False
    return True


def would_run_code(path: Path, error: Exception) -> bool:
    """Whether PyTorch's restricted unpickler refused a file for what it would import or call.

    Args:
        path: of the file; a zip is whole.
        error: what ``torch.load`` raised.
    """
    if _REFUSED.search(str(error)):
        named = re.search(r'GLOBAL \S*?([^.\s]*)(?:\s|$)', str(error))
        # Of a file that is cut off a name may be cut off, too: whole ones end with a line.
        return named is None or is_zip(path) or (
            bool(named[1]) and f'{named[1]}\n'.encode() in path.read_bytes())
    if not isinstance(error, pickle.UnpicklingError):
        return False
    if is_zip(path):
        return True
    # A way to call something that PyTorch's own files do not have. A file that is no pickle, such
    # as a text, fails at its first letter, so that the whole of it has to be one.
    try:
        with open(path, 'rb') as file:
            codes = {code.name for code, _, _ in pickletools.genops(file)}
    # The latter two: a damaged length says that more follows than there can be.
    except (ValueError, IndexError, MemoryError, OverflowError):
        return False
    return bool(codes & _CALLS)


def state_dict_of(checkpoint: Mapping[Any, Any], path: str | Path) -> Mapping[str, Any]:
    """Return the weights by name of a checkpoint.

    They lie under ``state_dict`` (mmengine), under ``model`` (RepDistiller, mdistiller), or are the
    checkpoint itself.

    Raises:
        UserError: there are none, or they are no dense tensors by name.
    """
    state = checkpoint.get('state_dict', checkpoint.get('model', checkpoint))
    if not isinstance(state, Mapping):
        raise UserError(f"checkpoint '{path}' holds a {type(state).__name__} where its weights by "
                        'name should be: save model.state_dict()')
    odd = [name for name in state if not isinstance(name, str)]
    if odd:
        raise UserError(f"checkpoint '{path}' has {len(odd)} entries among its weights whose name "
                        f'is no text (first: {odd[0]!r:.60}): save model.state_dict()')
    if not any(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"checkpoint '{path}' holds no tensor: save model.state_dict()")
    odd = [name for name, value in state.items()
           if isinstance(value, Tensor) and not _is_dense(value)]
    if odd:
        raise UserError(f"checkpoint '{path}' has {len(odd)} sparse, quantised or complex tensors "
                        f'or such without content (first: {odd[0]}): save the weights as plain '
                        'dense ones')
    return state


def _is_dense(value: Tensor) -> bool:
    return (value.layout == torch.strided and value.device.type == 'cpu'
            and not value.is_quantized and not value.is_complex() and not value.is_nested)


def weights_hash(state: Mapping[str, Any]) -> str:
    """Return a hash of weights, by their names, types, shapes and bits."""
    sums = hashlib.sha256()
    for name in sorted(state):
        value = state[name]
        sums.update(name.removeprefix('module.').encode('utf-8', 'surrogatepass'))
        if isinstance(value, Tensor):
            sums.update(f'{value.dtype} {tuple(value.shape)}'.encode())
            sums.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return sums.hexdigest()


def check_hash(checkpoint: Mapping[Any, Any], path: str | Path) -> None:
    """Compare the weights with the hash that mmkd wrote beside them, if it did.

    Raises:
        UserError: it is another.
    """
    meta = checkpoint.get('meta')
    written = meta.get(WEIGHTS_HASH) if isinstance(meta, Mapping) else None
    if written is not None and written != weights_hash(state_dict_of(checkpoint, path)):
        raise UserError(f"checkpoint '{path}' holds other weights than were written to it: copy or "
                        'train it again, or, if they were changed on purpose, take '
                        f"'{WEIGHTS_HASH}' out of its meta")


def warn_without_checksums(path: Path) -> None:
    """Warn of a file in PyTorch's old format, in which damage to the weights does not show.

    Published ones often have the beginning of their SHA-256 in their name, as
    ``resnet18-5c106cde.pth`` has: if it fits, nothing is said.
    """
    named = re.search(r'-([0-9a-f]{8,64})$', path.stem)
    if named is None or not _file_hash(path).startswith(named[1]):
        warnings.warn(
            f"checkpoint '{path}' is in PyTorch's format of before 1.6, which has no checksums, "
            'and its name has none that fits: whether it is damaged cannot be seen', stacklevel=3)


def _file_hash(path: str | os.PathLike) -> str:
    sums = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(CHUNK):
            sums.update(chunk)
    return sums.hexdigest()
