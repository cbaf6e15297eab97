"""The one exception type that is addressed to a user."""

import difflib
from collections.abc import Iterable

__all__ = ['UserError', 'did_you_mean']


class UserError(ValueError):
    """Something outside mmkd is wrong and the user can mend it.

    The message is one sentence that says what is wrong, where, and what to do. The
    command-line tools print it without a traceback.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the known name closest to ``name``, or ``''``."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ''
