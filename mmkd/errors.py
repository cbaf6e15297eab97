"""The one exception type that is addressed to a user, and those that damaged files cause."""

import difflib
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterable

__all__ = ['DAMAGED_ARCHIVE', 'UserError', 'did_you_mean']

DAMAGED_ARCHIVE = (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError,
                   zipfile.BadZipFile, RuntimeError, ValueError, IndexError, OverflowError,
                   MemoryError)
"""What Python's readers of zip, tar, gz, bz2 and xz raise for a damaged one.

A RuntimeError says of a zip that it is encrypted or packed in an unknown way, a ValueError that a
name or a number in it is none, an IndexError that a name is empty.
"""

# A DataLoader raises a worker's error anew, with the whole traceback as its message.
_OF_A_WORKER = re.compile(r'Caught \w+ in .*\bUserError: ', re.DOTALL)
_CONTROL = re.compile(r'\s*[\x00-\x1f\x7f-\x9f\u2028\u2029]\s*')


class UserError(ValueError):
    """Something outside mmkd is wrong and the user can mend it.

    The message is one sentence that says what is wrong, where, and what to do. The
    command-line tools print it without a traceback.

    Args:
        message: the sentence. What it quotes from a file may have any signs in it: it becomes one
            line, without control characters. Of a worker's traceback its sentence is left.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_CONTROL.sub(' ', _OF_A_WORKER.sub('', message)).strip())


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the known name closest to ``name``, or ``''``."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ''
