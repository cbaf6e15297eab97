"""Let PyTorch's restricted unpickler read the history of losses in mmengine's checkpoints."""

from typing import Any

import torch
from mmengine.logging import HistoryBuffer

__all__ = ['history_buffer_getattr']


def history_buffer_getattr(owner: Any, name: str) -> Any:
    """Stand in for ``getattr``, which a pickled ``HistoryBuffer`` calls for its own methods.

    mmengine allows ``getattr`` itself, and with it a way to any object of the process.
    """
    if owner is not HistoryBuffer or name.startswith('_'):
        raise TypeError(f'a checkpoint may not ask for {name} of {owner!r}')
    return getattr(owner, name)


# PyTorch looks an allowed function up by the name that is in the file.
history_buffer_getattr.__module__ = 'builtins'
history_buffer_getattr.__name__ = history_buffer_getattr.__qualname__ = 'getattr'
torch.serialization.add_safe_globals([history_buffer_getattr])
