"""What becomes of a run that is in the folder of a new one already, finished or still at work."""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.logging import print_log

from mmkd.engine.run_folder import BEST, CHECK, CONFIG, ENVIRONMENT, LAST, LOG, RESULTS
from mmkd.errors import UserError

__all__ = ['alone_in', 'put_aside', 'put_back']

KEPT = (RESULTS, BEST, LAST, CHECK, CONFIG, ENVIRONMENT, LOG)


@contextmanager
def alone_in(folder: str | Path) -> Iterator[None]:
    """Let no second training write into a folder for as long as this one does.

    The lock belongs to this process alone, and not to its data workers, which may outlive a killed
    training by seconds: a resume does not wait for them.

    Raises:
        UserError: another training is at work there.
    """
    lock = os.open(Path(folder, '.lock'), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            os.close(lock)
            raise UserError(f"another training is at work in '{folder}': wait until it ends, or "
                            'name another folder with --work-dir') from error
        # Any other error: the file system knows no locks, and nobody can be told apart.
    try:
        yield
    finally:
        os.close(lock)


def put_aside(folder: str | Path) -> Path | None:
    """Move what an earlier run left into a folder of its own, since another begins anew.

    Its ``epoch_N.pth`` stay: the new run writes over them one by one.

    Returns:
        the folder, ``earlier_DATE_TIME``, or None where there is nothing to move.
    """
    folder = Path(folder)
    found = [folder / name for name in KEPT if (folder / name).is_file()]
    if not any(path.name in (RESULTS, BEST, LAST) for path in found):
        return None
    stamp = f'earlier_{time.strftime("%Y%m%d_%H%M%S")}'
    aside = next(path for i in range(1000)
                 if not (path := folder / f'{stamp}{f"_{i}" if i else ""}').exists())
    aside.mkdir()
    for path in found:
        os.replace(path, aside / path.name)
    print_log(f"another run was in '{folder}': its results are in '{aside}' now", 'current')
    return aside


def put_back(aside: Path) -> None:
    """Undo :func:`put_aside`, since the new run ended before its first step."""
    for name in KEPT:
        if (aside / name).is_file():
            os.replace(aside / name, aside.with_name(name))
        else:
            aside.with_name(name).unlink(missing_ok=True)
    aside.rmdir()
    print_log(f"the run that was in '{aside.parent}' is there again", 'current')
