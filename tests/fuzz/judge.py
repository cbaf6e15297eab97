"""What one input led to: read, refused, or bad."""

import contextlib
import os
import random
import shutil
import signal
import sys
import traceback
import warnings
from pathlib import Path

from mmkd.errors import UserError

READ, REFUSED = 'read', 'refused'
SECONDS = 20
CANARY = 'ran'
"""The file that hostile inputs try to make, in the folder of all inputs."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {'os.mkdir': 0, 'os.rename': 1, 'os.remove': 0, 'os.rmdir': 0, 'os.link': 1,
           'os.symlink': 1, 'os.chmod': 0, 'os.truncate': 0}
FORBIDDEN = ('os.system', 'os.exec', 'os.fork', 'os.posix_spawn', 'subprocess.Popen',
             'socket.connect', 'socket.getaddrinfo', 'ctypes.dlopen')


class Hang(BaseException):
    """An input took too long."""


class Watch:
    """Python's audit events while an input is read: files outside, processes, connections.

    An audit hook cannot be taken away again; it does nothing while no input is read.
    """

    def __init__(self):
        self.folder, self.seen = None, []
        sys.addaudithook(self._event)

    def _event(self, event, args):
        if self.folder is None:
            return
        if event in FORBIDDEN:
            self.seen.append(f'{event} {args!r:.200}')
        elif event == 'open' and isinstance(args[2], int) and args[2] & WRITING:
            self._check(event, args[0])
        elif event in CHANGES:
            self._check(event, args[CHANGES[event]], args[-1])

    def _check(self, event, path, folder=None):
        if isinstance(path, bytes | str | os.PathLike):
            # `folder` is an open one that a relative path begins at, or something below 0.
            start = f'/proc/self/fd/{folder}' if isinstance(folder, int) and folder >= 0 else ''
            place = os.path.realpath(os.path.join(start, os.fsdecode(path)))
            if place != os.devnull and not place.startswith(self.folder + os.sep):
                self.seen.append(f'{event} {place[:200]}')

    @contextlib.contextmanager
    def over(self, folder):
        """Note what happens outside of a folder."""
        self.folder, self.seen = os.path.realpath(folder), []
        try:
            yield
        finally:
            self.folder = None


WATCH = Watch()


def _ring(*_):
    raise Hang


def judge(kind, seed, number, base):
    """Make input `number` of a kind, read it, and return READ, REFUSED or what is bad about it."""
    rng = random.Random(f'{seed} {kind.name} {number}')
    place, canary = Path(base, 'input'), Path(base, CANARY)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    kind.damage(rng, place)
    before = signal.signal(signal.SIGALRM, _ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with WATCH.over(base), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            found = _outcome(kind, place)
    except Hang:
        found = f'hangs for more than {SECONDS} s'
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if canary.exists():
        canary.unlink()
        return 'code ran'
    if WATCH.seen:
        return f'touched what is not its own: {WATCH.seen[0]}'
    return found


def _outcome(kind, place):
    try:
        kind.read(place)
    except UserError as error:
        text = str(error)
        if len(text) < 20 or (not text.isprintable() and len(text.splitlines()) > 1):
            return f'no sentence of one line: {text!r:.300}'
        return REFUSED
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in where if '/mmkd/' in frame.filename] or where
        return (f'{type(error).__name__} at {Path(own[-1].filename).name}:{own[-1].lineno}: '
                f'{error!s:.200}')
    return READ
