"""Start, kill, resume, compare."""

import atexit
import itertools
import os
import random
import shutil
import signal
import socket
import sys
import time
import traceback
from dataclasses import dataclass, field

import torch

import kills.parts  # noqa: F401  registers
from kills.aims import FILES, Aim
from kills.equality import differences
from kills.trainings import Trainings

PATIENCE = 600
"""Seconds after which a training is said to hang."""


@dataclass
class Life:
    """One run of a training: killed, resumed, killed again, until it ends."""

    training: str
    kind: str
    kills: int = 0
    resumed: int = 0
    """After how many of the kills the run went on, to its end or to the next kill."""
    wrong: list[str] = field(default_factory=list)
    """How it differs from the undisturbed run, or how it failed."""


def run(folder, kills, seed, names=None, kinds=('any moment', *FILES)):
    """Yield lives until `kills` kills have hit, each training and kind in turn.

    Every start is a process of its own, forked from this one, which has imported the libraries and
    computed nothing with them since; it calls `mmkd train ... --resume` as a shell would.
    """
    trainings = Trainings(folder)
    chosen, left = random.Random(seed), kills
    whole = {name: _Undisturbed(trainings, name) for name in names or trainings.commands}
    for number, (kind, one) in enumerate(itertools.cycle(
            [(kind, one) for kind in kinds for one in whole.values()
             if kind != 'cache' or one.name in trainings.cached])):
        if left <= 0:
            return
        life = one.life(kind, chosen, min(left, 3), number)
        left -= life.kills
        yield life


class _Undisturbed:
    """A training that nobody killed: how long it takes, and how many moments to aim at it has."""

    def __init__(self, trainings, name):
        self.trainings, self.name = trainings, name
        self.folder = trainings.folder / name.replace(' ', '_').replace(',', '') / 'undisturbed'
        self.seconds = None

    def begin(self):
        if self.seconds is not None:
            return
        logs = {kind: self.folder.with_suffix(f'.{kind}') for kind in FILES}
        arguments = self.trainings.arguments(self.name, self.folder)
        begin = time.monotonic()
        ended = ended_as(self._start(arguments, [Aim(kind, log=log) for kind, log in logs.items()]))
        if ended != 'ended':
            raise RuntimeError(f'the undisturbed training {self.name} {ended}: see {self._said}')
        self.seconds = time.monotonic() - begin
        self.moments = {kind: log.stat().st_size for kind, log in logs.items() if log.exists()}

    @property
    def _said(self):
        return self.folder.with_name('said.txt')

    def _start(self, arguments, aims=()):
        count = self.trainings.processes.get(self.name, 1)
        if count == 1:
            return [forked(arguments, self._said, aims)]
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = free.getsockname()[1]
        return [forked([*arguments, '--launcher', 'pytorch'], self._said, aims, dict(
            RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=count, MASTER_ADDR='127.0.0.1',
            MASTER_PORT=port, TORCHELASTIC_RUN_ID='kills')) for rank in range(count)]

    def life(self, kind, chosen, kills, number):
        """Run it again, with at most so many kills of a kind, and compare."""
        self.begin()
        life, folder = Life(self.name, kind), self.folder.with_name(f'{number}')
        arguments = self.trainings.arguments(self.name, folder)
        ended = 'killed'
        while ended == 'killed':
            pids = self._start(arguments, self._aims(kind, chosen, life, kills))
            moment = chosen.uniform(0, self.seconds / (1 + life.kills))
            ended = ended_as(pids, moment if kind == 'any moment' and life.kills < kills else None)
            if life.kills and ended in ('killed', 'ended'):
                life.resumed += 1
            life.kills += ended == 'killed'
        life.wrong = (differences(folder, self.folder) if ended == 'ended'
                      else [f'{ended}: see {self._said}'])
        if not life.wrong:
            shutil.rmtree(folder)
        return life

    def _aims(self, kind, chosen, life, kills):
        if kind == 'any moment' or life.kills == kills:
            return []
        # What is left to write after a kill is less, at least half of it often.
        last = max(1, self.moments[kind] // (1 + life.kills))
        return [Aim(kind, chosen.randint(1, last))]


def forked(arguments, said, aims=(), environment=None):
    """Start `mmkd train` with these arguments; return the process."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 3
    atexit._clear()  # what this process would do at its end, such as remove the folder
    try:
        out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.environ.update({name: str(value) for name, value in (environment or {}).items()})
        torch.set_num_threads(1)
        for aim in aims:
            aim.take()
        from mmkd.commands.train import main
        main(arguments)
        status = 0
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def ended_as(pids, moment=None, patience=PATIENCE):
    """Wait; kill the processes after `moment` seconds, and all when one was killed.

    Returns:
        'ended', 'killed', or how the training failed.
    """
    begin, left, found = time.monotonic(), set(pids), 'ended'
    while left:
        seconds = time.monotonic() - begin
        if seconds > patience or (moment is not None and seconds > moment):
            found = 'killed' if seconds <= patience else f'hung for {patience} s'
            moment = None
            for pid in left:
                os.kill(pid, signal.SIGKILL)
        for pid in list(left):
            done, status = os.waitpid(pid, os.WNOHANG)
            if not done:
                continue
            left.remove(pid)
            if found != 'ended':
                continue
            if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
                found = 'killed'
            elif status:
                found = f'failed with status {os.waitstatus_to_exitcode(status)}'
            else:
                continue
            for other in left:  # as torchrun does
                os.kill(other, signal.SIGKILL)
        time.sleep(0.005)
    return found
