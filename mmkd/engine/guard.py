"""No file runs code, whichever library opens it: weights, initial weights, checkpoints, pickles."""

import os
from pathlib import Path
from typing import Any, NoReturn

from mmengine.fileio.handlers import file_handlers
from mmengine.runner import checkpoint

from mmkd.checkpoints import load_checkpoint_safely
from mmkd.errors import UserError

__all__ = ['refuse_code_in_files']


def refuse_code_in_files() -> None:
    """Close every way from a file to running code, for this process and those that it starts.

    - ``torch.load`` of any library reads with PyTorch's restricted unpickler, whatever it was told.
    - mmengine's loader, which would try again without restrictions, is
      :func:`~mmkd.checkpoints.load_checkpoint_safely`, which also says what is wrong
      with a file. So ``init_cfg`` of any spelling, ``pretrained=``, ``load_from`` and ``--resume``
      are safe, of students and of teachers.
    - A ``.pkl`` that a config names (boxes of proposals, a list of images) is refused.
    """
    os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] = '1'
    os.environ.pop('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', None)  # both at once are an error
    checkpoint._safe_torch_load = _load
    for extension in ('pickle', 'pkl'):
        handler = file_handlers[extension]
        handler.load_from_path = handler.load_from_fileobj = _refuse_pickle


def _load(file: Any, map_location: Any = None, weights_only: bool | None = None) -> Any:
    """Stand in for mmengine's function of the same arguments; the runner moves the weights."""
    if isinstance(file, str | Path):
        return load_checkpoint_safely(file)
    raise UserError('Weights from a storage service are not loaded: download the file and give its '
                    'path.')


def _refuse_pickle(*args: Any, **kwargs: Any) -> NoReturn:
    raise UserError('The config names a .pkl file, which can run code when it is read, so it is '
                    'refused: save what it holds as JSON and name that file.')
