"""Load checkpoints without ever running what is inside them."""

import os
import pickle
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from mmkd.checkpoint_checks import (
    check_hash,
    is_whole,
    is_zip,
    state_dict_of,
    warn_without_checksums,
    would_run_code,
)
from mmkd.errors import UserError

__all__ = ['load_checkpoint_safely', 'load_weights']

# What PyTorch's restricted unpickler and the rebuilding of tensors raise for a damaged file.
_DAMAGED = (pickle.UnpicklingError, struct.error, RuntimeError, EOFError, LookupError, ValueError,
            AttributeError, TypeError, OSError, ArithmeticError, MemoryError, AssertionError)


def _history_buffer_getattr(owner: Any, name: str) -> Any:
    """Stand in for ``getattr``, which a pickled ``HistoryBuffer`` calls for its own methods.

    mmengine allows ``getattr`` itself, and with it a way to any object of the process.
    """
    if owner is not HistoryBuffer or name.startswith('_'):
        raise TypeError(f'Unsupported: a checkpoint may not ask for {name} of {owner!r}')
    return getattr(owner, name)


# PyTorch looks an allowed function up by the name that is in the file.
_history_buffer_getattr.__module__ = 'builtins'
_history_buffer_getattr.__name__ = _history_buffer_getattr.__qualname__ = 'getattr'


def _harmless_globals() -> list[Any]:
    """What mmengine's checkpoints hold beside tensors and plain types: logged numbers."""
    core = np._core if hasattr(np, '_core') else np.core
    dtypes = {type(np.dtype(name)) for name in
              ('bool', 'uint8', 'int32', 'uint32', 'int64', 'uint64', 'float32', 'float64')}
    return [core.multiarray._reconstruct, core.multiarray.scalar, np.ndarray, np.dtype,
            HistoryBuffer, slice, _history_buffer_getattr, *dtypes]


def load_checkpoint_safely(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU with PyTorch's restricted unpickler.

    Plain weights, also as ``.safetensors``, and the checkpoints of mmengine are accepted. Whatever
    would import or call anything else is refused, so a downloaded file cannot run code. Checksums
    are compared, which PyTorch does not do: those of the zip file, and the hash that mmkd writes
    beside the weights. PyTorch's old format has none, which is said in a warning.

    Returns:
        what is in the file; its weights are dense tensors by name.

    Raises:
        UserError: the file is missing, damaged, not a checkpoint, or would run code.
    """
    path = Path(path)
    if os.path.isdir(path):  # unlike Path's, of any name
        raise UserError(f"checkpoint '{path}' is a folder: name a file in it"
                        f'{_neighbours(path / "a.pth")}')
    if not os.path.isfile(path):
        raise UserError(f"checkpoint '{path}' does not exist: train it first or correct the path"
                        f'{_neighbours(path)}')
    if path.suffix == '.safetensors':
        return _read_safetensors(path)
    damaged = (f"checkpoint '{path}' is truncated, damaged or no PyTorch checkpoint: copy or train "
               'it again')
    # Each time anew: mmengine's own loader takes what it allowed off the list again.
    torch.serialization.add_safe_globals(_harmless_globals())
    try:
        with_checksums = is_zip(path)
        if with_checksums and not is_whole(path):
            raise UserError(damaged)
        checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    except UserError:
        raise
    except _DAMAGED as error:
        if would_run_code(path, error):
            raise UserError(
                f"checkpoint '{path}' holds Python objects that could run code when loaded, so it "
                'is refused: ask its author for plain weights (a state_dict)') from error
        raise UserError(damaged) from error
    if not isinstance(checkpoint, dict):
        raise UserError(f"checkpoint '{path}' holds a {type(checkpoint).__name__} instead of "
                        'weights by name: save model.state_dict()')
    state_dict_of(checkpoint, path)
    check_hash(checkpoint, path)
    if not with_checksums:
        warn_without_checksums(path)
    return checkpoint


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise UserError(f"checkpoint '{path}' needs the package safetensors: pip install "
                        'safetensors') from error
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"checkpoint '{path}' is truncated or no .safetensors file: copy or "
                        'download it again') from error


def _neighbours(path: Path, most: int = 10) -> str:
    """Name the checkpoints in the folder of ``path``: perhaps it was trained for other epochs."""
    if not os.path.isdir(path.parent):
        return f"; there is no folder '{path.parent}' either"
    names = [file.name for file in path.parent.glob('*.pth')]
    # Numbers by their value: epoch_9.pth before epoch_10.pth.
    names.sort(key=lambda name: [int(part) if part.isdigit() else part
                                 for part in re.split(r'(\d+)', name)])
    more = f' and {len(names) - most} before them' if len(names) > most else ''
    return f'; in that folder there are: {", ".join(names[-most:]) or "no checkpoints"}{more}'


def load_weights(model: nn.Module, path: str | Path, prefix: str = '') -> dict[str, Any]:
    """Load a checkpoint's weights into ``model``; every key must fit.

    An entry that stands there twice, since a part had a second name in training, counts once: DDQ
    gives its head's branches to the decoder.

    Where they lie in the file is said at :func:`mmkd.checkpoint_checks.state_dict_of`. A model with
    a method ``convert_state_dict`` may rename what it does not know.

    Args:
        model: a network, perhaps wrapped.
        path: of the file.
        prefix: take the entries alone whose names begin with it (``'backbone.'``), without it.

    Returns:
        the checkpoint's ``meta`` (``dataset_meta`` with the class names, if it was trained by
        mmengine), or an empty dict.

    Raises:
        UserError: as :func:`load_checkpoint_safely`, or the weights belong to another architecture.
    """
    checkpoint = load_checkpoint_safely(path)
    state = {key.removeprefix('module.'): value
             for key, value in state_dict_of(checkpoint, path).items()}
    if prefix:
        state = _below(state, prefix, path)
    model = model.module if is_model_wrapper(model) else model
    own = model.state_dict()
    if not state.keys() <= own.keys() and hasattr(model, 'convert_state_dict'):
        try:
            state = model.convert_state_dict(state)
        except UserError as error:
            raise UserError(f"checkpoint '{path}': {error}") from error
    # A counter that old checkpoints lack and inference never reads.
    missing = [key for key in own if key not in state and not key.endswith('num_batches_tracked')]
    unexpected = [key for key in state if key not in own and not _is_repeated(key, state, own)]
    reshaped = [f'{key} {_shape(state[key])} for {_shape(own[key])}' for key in own
                if key in state and _shape(state[key]) != _shape(own[key])]
    faults = [f'{len(keys)} {what} (first: {keys[0]})' for what, keys in
              (('missing', missing), ('unexpected', unexpected), ('of another shape', reshaped))
              if keys]
    if faults:
        raise UserError(f"checkpoint '{path}' is of another architecture than the config's "
                        f'{type(model).__name__}: {", ".join(faults)} of {len(own)} entries; '
                        'use the config that it was trained with')
    model.load_state_dict(state, strict=False)
    meta = checkpoint.get('meta')
    return meta if isinstance(meta, dict) else {}


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else f'a {type(value).__name__}'


def _is_repeated(key: str, state: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    ending = f'.{key.partition(".")[2]}'
    value = state[key]
    return isinstance(value, Tensor) and any(
        name in own and name.endswith(ending) and isinstance(other, Tensor)
        and other.dtype == value.dtype and torch.equal(other, value)
        for name, other in state.items())


def _below(state: dict[str, Any], prefix: str, path: str | Path) -> dict[str, Any]:
    found = {key.removeprefix(prefix): value for key, value in state.items()
             if key.startswith(prefix)}
    if not found:
        starts = sorted({key.partition('.')[0] + '.' for key in state})
        raise UserError(f"checkpoint '{path}' has no entry below '{prefix}', only below "
                        f'{", ".join(starts[:10])}: correct `prefix`')
    return found
