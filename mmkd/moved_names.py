"""Single names that are elsewhere since 0.2.0: found at their old places for this release."""

import importlib
import warnings
from collections.abc import Callable
from typing import Any

__all__ = ['moved_names']


def moved_names(module: str, **places: str) -> Callable[[str], Any]:
    """Return a module's ``__getattr__`` that finds names where they are now, and warns.

    ``__getattr__ = moved_names(__name__, write_atomically='mmkd.files')``.
    """
    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module '{module}' has no attribute '{name}'")
        warnings.warn(f'{module}.{name} is in {places[name]} now, and will not be found under its '
                      'old name by the next release', DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module(places[name]), name)
    return get
