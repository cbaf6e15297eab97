"""How the command-line tools end."""

import atexit
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pickle import UnpicklingError

from mmkd.errors import UserError

__all__ = ['end_worker', 'user_errors']

PACKAGES = dict(cv2='opencv-python', sklearn='scikit-learn', PIL='pillow',
                mmengine='onedl-mmengine', mmcv='onedl-mmcv', mmdet='onedl-mmdetection')
"""What pip calls a package that Python calls otherwise."""


@contextmanager
def user_errors(if_interrupted: str = '') -> Iterator[None]:
    """Print a :class:`UserError` as ``error: <sentence>`` on stderr and exit with status 1.

    So does a package that is not installed. Ctrl-C prints ``interrupted`` and ``if_interrupted``,
    and exits with status 130. Where nobody reads what is printed (``| head``), it exits with status
    1 and says nothing. Every other exception keeps its traceback. What ends well ends with
    :func:`end_worker`. Works as ``with user_errors():`` and as a decorator, ``@user_errors()``.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        if not _nobody_reads():
            raise
        raise SystemExit(1) from None
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        raise SystemExit(1) from None
    except UnpicklingError:  # of a library's own loader, see mmkd/engine/guard.py
        print('error: a weights file holds Python objects that could run code when loaded, or is '
              'damaged, so it is refused: ask its author for plain weights (a state_dict)',
              file=sys.stderr)
        raise SystemExit(1) from None
    except ImportError as error:
        sentence = _missing_package(error)
        if sentence is None:
            raise
        print(f'error: {sentence}', file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print('; '.join(filter(None, ('interrupted', if_interrupted))), file=sys.stderr)
        raise SystemExit(130) from None
    end_worker()


def _nobody_reads() -> bool:
    """Tell whether the pipe behind stdout is closed; if so, what is left to print goes nowhere."""
    try:
        os.write(sys.stdout.fileno(), b'\n')
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _missing_package(error: ImportError) -> str | None:
    """Say which package is not installed; None for a module that mmkd or Python should have."""
    # Where mmengine builds something it raises the error anew, so that its `name` is gone.
    found = re.search(r"No module named '(\w+)", str(error))
    if found is None or found[1] in ('mmkd', *sys.stdlib_module_names):
        return None
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)
             if not frame.filename.startswith('<')]
    package = PACKAGES.get(found[1], found[1])
    return (f"the package '{package}' is not installed, which "
            f"{files[-1].rpartition('site-packages/')[2]} needs: pip install {package}")


def end_worker() -> None:
    """End a process that torchrun started, with status 0, and return in every other.

    Python is not taken apart: a thread of gloo that just then lets go of a tensor would abort the
    process ("terminate called without an active exception", PyTorch's issue 190489), and torchrun
    would take a finished run for a failed one.
    """
    if 'TORCHELASTIC_RUN_ID' not in os.environ:
        return
    atexit._run_exitfuncs()  # what the interpreter would call first
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
