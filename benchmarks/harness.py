"""What every part of the benchmark is measured with: calls that take turns in one process.

A part is a file in ``parts/`` whose docstring says what is compared and how, with a function
``measure(options: Options) -> Iterable[Result]``; importing it does nothing. ``run.py`` runs parts.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

__all__ = ['Options', 'Result', 'compare', 'result', 'time_calls']

WARMUP = 2


@dataclass(frozen=True)
class Options:
    """What the command line asks of every part."""

    rounds: int = 15
    quick: bool = False
    """Tiny sizes, for the test that the part runs; its numbers mean nothing."""


@dataclass(frozen=True)
class Result:
    """One row of the table: a call beside its baseline."""

    part: str
    name: str
    """What was timed, e.g. ``'resnet50, channels_last + bf16'``."""
    baseline: str
    """What it is compared with, e.g. ``'eager'``."""
    baseline_ms: float
    """Median time of the baseline."""
    ms: float
    """Median time of the call."""
    ratio: float
    """Median over the rounds of the baseline's time over the call's: above 1 is faster."""
    low: float
    """Lower quartile of that ratio."""
    high: float
    """Upper quartile."""
    rounds: int
    note: str = ''


def compare(part: str, calls: Mapping[str, Callable[[], object]], baseline: str, options: Options,
            *, inner: int = 1) -> list[Result]:
    """Time calls against one of them.

    In every round each call has its turn, in the opposite order in every second round, so that
    what else the machine does touches all alike; ratios are taken within a round. Each call is
    warmed up before, and a GPU is waited for before and after each measurement.

    Args:
        part: the part's name.
        calls: what to time, by name.
        baseline: the name of the call that the others are compared with.
        options: the number of rounds.
        inner: how often a call is repeated within one measurement; for short ones.

    Returns:
        one row for each call but the baseline.
    """
    seconds = time_calls(calls, options, inner)
    return [result(part, name, baseline, seconds[baseline], times)
            for name, times in seconds.items() if name != baseline]


def time_calls(calls: Mapping[str, Callable[[], object]], options: Options,
               inner: int = 1) -> dict[str, list[float]]:
    """Return the seconds that each call took in every round; see :func:`compare`."""
    for call in calls.values():
        for _ in range(1 if options.quick else WARMUP):
            call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(options.rounds):
        for name in reversed(calls) if number % 2 else calls:
            seconds[name].append(_seconds(calls[name], inner))
    return seconds


def result(part: str, name: str, baseline: str, baseline_seconds: list[float],
           seconds: list[float], note: str = '') -> Result:
    """Make a row of the times of two calls, round by round."""
    ratios = [base / own for base, own in zip(baseline_seconds, seconds, strict=True)]
    low, median, high = (statistics.quantiles(ratios, n=4, method='inclusive')
                         if len(ratios) > 1 else ratios * 3)
    return Result(part, name, baseline, 1e3 * statistics.median(baseline_seconds),
                  1e3 * statistics.median(seconds), median, low, high, len(ratios), note)


def _seconds(call: Callable[[], object], inner: int) -> float:
    _wait()
    start = time.perf_counter()
    for _ in range(inner):
        call()
    _wait()
    return (time.perf_counter() - start) / inner


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
