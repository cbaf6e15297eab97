"""Where a process kills itself: at the n-th moment in which a file of some kind is being written.

Each file has three such moments (a link to a checkpoint has the last two): half of it is written
under its temporary name; all of it, and not yet renamed; renamed, and nothing else done.
"""

import os
import re
import signal

FILES = dict(
    checkpoint=r'(epoch|iter)_\d+\.pth|last_checkpoint|last\.pth',
    cache=r'\.shard|made_from\.json',
    results=r'results\.csv|check\.json|best\.pth|accuracy\.json|config\.py|environment\.txt|resnet8_')


class Aim:
    """Patches this process so that it dies at moment number `number` (from 1) of files of a kind.

    Args:
        kind: of `FILES`.
        number: None to count only: a byte for each moment is appended to `log`.
        log: a file.
    """

    def __init__(self, kind, number=None, log=None):
        self.files, self.number, self.log = re.compile(FILES[kind]), number, log

    def take(self):
        """Patch what writes."""
        fsync, replace = os.fsync, os.replace

        def half(descriptor):
            path = os.readlink(f'/proc/self/fd/{descriptor}')
            if os.path.isfile(path):
                self._moment(path, lambda: os.truncate(path, os.path.getsize(path) // 2))
            fsync(descriptor)

        def rename(source, target, **options):
            self._moment(target)
            replace(source, target, **options)
            self._moment(target)
        os.fsync, os.replace = half, rename

    def _moment(self, path, before=lambda: None):
        if not self.files.search(os.path.basename(path)):
            return
        if self.log is not None:
            with open(self.log, 'ab') as file:
                file.write(b'.')
        if self.number is not None:
            self.number -= 1
            if self.number == 0:
                before()
                os.kill(os.getpid(), signal.SIGKILL)
