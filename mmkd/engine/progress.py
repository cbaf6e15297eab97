"""Run a training command, keep its log and say how far it is."""

import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from mmkd.errors import UserError

__all__ = ['Progress', 'run_with_progress']

_STEP = re.compile(r'Epoch\(train\)\s+\[(\d+)\]\[\s*(\d+)/(\d+)\]')


class Progress:
    """Says how much of a job of several stages is done and about how long the rest takes.

    Args:
        costs: the expected cost of each stage, in any unit; only the ratios count. 0 for a stage
            that an earlier run made.
    """

    def __init__(self, costs: Sequence[float]) -> None:
        self._costs = list(costs)
        self._start = time.monotonic()
        self._done_here = 0.0
        self._last = 0.0

    def finished(self, stage: int) -> None:
        """Count a stage as done by this run."""
        self._done_here += self._costs[stage]
        self._costs[stage] = 0.0

    def show(self, stage: int, fraction: float) -> None:
        """Print the state of a stage: in place on a terminal, else a line every half minute."""
        now = time.monotonic()
        if now - self._last < (0.5 if sys.stdout.isatty() else 30):
            return
        self._last = now
        done = self._done_here + fraction * self._costs[stage]
        left = sum(self._costs) - fraction * self._costs[stage]
        text = f'    {fraction:4.0%} of this stage'
        if now - self._start > 60:  # before, starting up would count too much
            text += f', about {_minutes((now - self._start) / done * left)} left in all'
        print(f'\r{text}    ' if sys.stdout.isatty() else text,
              end='' if sys.stdout.isatty() else '\n', flush=True)


def run_with_progress(command: Sequence[str], log: Path, epochs: int, progress: Progress,
                      stage: int, environment: dict[str, str]) -> None:
    """Run an mmengine training command, its output going to ``log``.

    Raises:
        UserError: the command failed; quotes its last line and names the log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    tail: deque[str] = deque(maxlen=5)
    with open(log, 'a', encoding='utf-8') as file, subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            tail.append(line.strip())
            step = _STEP.search(line)
            if step:
                epoch, iteration, length = map(int, step.groups())
                progress.show(stage, (epoch - 1 + iteration / length) / epochs)
    if sys.stdout.isatty():
        print('\r' + ' ' * 70 + '\r', end='')
    if process.returncode:
        last = next((line for line in reversed(tail) if line), 'no output')
        raise UserError(f"`{' '.join(command)}` failed ({last}): see {log}")


def _minutes(seconds: float) -> str:
    return f'{seconds / 60:.0f} min' if seconds >= 90 else f'{seconds:.0f} s'
