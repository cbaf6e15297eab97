"""How the command-line tools end when something outside mmkd is wrong."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mmkd.errors import UserError

__all__ = ['user_errors', 'user_sentence']


def user_sentence(error: UserError) -> str:
    """Return the one sentence of ``error``.

    A DataLoader re-raises a worker's error with the worker's whole traceback as its message; the
    sentence is what follows the last exception name in it.
    """
    message = str(error)
    if message.startswith('Caught UserError in '):
        message = message.rpartition('UserError: ')[2]
    return message.strip()


@contextmanager
def user_errors() -> Iterator[None]:
    """Print a :class:`UserError` as ``error: <sentence>`` on stderr and exit with status 1.

    Every other exception keeps its traceback. Works as ``with user_errors():`` and as a
    decorator, ``@user_errors()``.
    """
    try:
        yield
    except UserError as error:
        print(f'error: {user_sentence(error)}', file=sys.stderr)
        raise SystemExit(1) from None
