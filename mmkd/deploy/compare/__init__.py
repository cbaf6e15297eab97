"""What compares models: their latency, size, operations and accuracy, and the tables of them.

What a program calls is here, and imported when it is asked for: it needs ``mmkd[deploy]``, and
counting parameters does not.
"""

from typing import Any

__all__ = ['Entry', 'Row', 'Setup', 'compare', 'load_entry', 'parse_entry']


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'mmkd.deploy.compare' has no attribute '{name}'")
    from mmkd.deploy.compare import models

    return getattr(models, name)
