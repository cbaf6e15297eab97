"""Read pickles of arrays and plain types; anything else in them never runs."""

import io
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from mmkd.errors import UserError

__all__ = ['load_arrays']


def load_arrays(content: bytes, source: str) -> dict[bytes | str, Any]:
    """Unpickle a dictionary of arrays, lists, numbers and strings.

    A pickle may name any function and have it called. Here a handful of names stands for arrays,
    none of them NumPy's own, and every other name is refused. Strings that Python 2 wrote come
    back as bytes.

    Args:
        content: the pickle.
        source: its file, for the error.

    Raises:
        UserError: the pickle names something else, is cut off or damaged, or holds no
            dictionary.
    """
    try:
        loaded = _Unpickler(io.BytesIO(content), source).load()
        if not isinstance(loaded, dict):
            raise TypeError(f'it holds a {type(loaded).__name__} and no dictionary')
        return {key: value.read() if isinstance(value, _Array) else value
                for key, value in loaded.items()}
    except UserError:
        raise
    except Exception as error:  # A damaged pickle can fail in any way there is.
        raise UserError(f'{source} is damaged ({error}): put the official file there') from error


class _DType:
    def __init__(self, code: bytes | str, *_: Any) -> None:
        code = code.decode() if isinstance(code, bytes) else code
        if not re.fullmatch(r'[|<>=]?[uif][1248]', code):
            raise TypeError(f'it has an array of type {code!r}')
        self.value = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        order = state[1].decode() if isinstance(state[1], bytes) else state[1]
        self.value = self.value.newbyteorder(order)


class _Array:
    """What a pickle says of an array, until it is read."""

    def __setstate__(self, state: tuple) -> None:
        _, self.shape, self.dtype, self.fortran, self.raw = state

    def read(self) -> np.ndarray:
        values = np.frombuffer(self.raw, self.dtype.value)
        return values.reshape(self.shape, order='F' if self.fortran else 'C')


def _array(*_: Any) -> _Array:
    return _Array()


def _array_of_buffer(raw: bytes, dtype: _DType, shape: tuple, order: str) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order == 'F', raw))
    return array


def _encode(text: str, codec: str) -> bytes:
    if codec != 'latin1':
        raise ValueError(f'it has a string encoded as {codec!r}')
    return text.encode('latin1')


def _no_bytes() -> bytes:
    return b''


# NumPy 2 moved `numpy.core` to `numpy._core`; files of either come.
_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ('numpy', 'ndarray'): _Array,
    ('numpy', 'dtype'): _DType,
    ('numpy.core.multiarray', '_reconstruct'): _array,
    ('numpy._core.multiarray', '_reconstruct'): _array,
    ('numpy.core.numeric', '_frombuffer'): _array_of_buffer,
    ('numpy._core.numeric', '_frombuffer'): _array_of_buffer,
    ('_codecs', 'encode'): _encode,
    ('__builtin__', 'bytes'): _no_bytes,
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, source: str) -> None:
        super().__init__(file, encoding='bytes')
        self.source = source

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        stand_in = _STAND_INS.get((module, name))
        if stand_in is None:
            raise UserError(f"{self.source} asks for '{module}.{name}', which an archive of images "
                            'has no use for and which may run code: do not use this file, put the '
                            'official one there')
        return stand_in
