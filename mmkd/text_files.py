"""Read a text file, or say why it cannot be read."""

import os
from pathlib import Path

from mmkd.errors import UserError

__all__ = ['read_text']


def read_text(path: str | os.PathLike, remedy: str) -> str:
    """Return the content of a UTF-8 file, without a byte order mark.

    Args:
        path: of the file.
        remedy: what to do where it cannot be read.

    Raises:
        UserError: it is missing, a folder, or no UTF-8.
    """
    try:
        return Path(path).read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise UserError(f"'{path}' is no UTF-8 text (byte {error.start} does not fit): save it as "
                        f'UTF-8, or {remedy}') from error
    except (OSError, ValueError) as error:  # the latter: no possible name
        raise UserError(f"'{path}' cannot be read ({getattr(error, 'strerror', error)}): "
                        f'{remedy}') from error
